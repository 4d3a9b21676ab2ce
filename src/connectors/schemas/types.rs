//! Schemas of the types that read themselves: texts that are paths, templates, durations and times, and maps in order.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::expression::Expression;
use crate::connectors::auth_files::{Names, Paths};
use crate::connectors::files::{Pairs, Span, Values};
use crate::connectors::locator::Locator;
use crate::connectors::mapping::path::Path;
use crate::connectors::mapping::times::TimeFormat;
use crate::connectors::mapping::zones::Times;
use crate::connectors::schema::{Properties, Property};
use crate::connectors::template::{Template, VARIABLES};
use crate::connectors::yaml::Placed;

/// What `Path::parse` takes.
pub const PATH: &str = r#"^\$[A-Za-z0-9_]*(\.[^.\[]+|\[[0-9]+\]|\['[^']*'\]|\["[^"]*"\])*$"#;
/// What `Template::parse` takes, but for the names that holes may begin with.
pub const TEMPLATE: &str = r"^([^{]|\{(?!\{)|\{\{[^{}|]+(\|\s*(raw|lower|upper|dashes|underscores)\s*)*\}\})*$";

/// A schema under its type's name.
macro_rules! described {
    ($type:ty, $name:literal, $generator:ident, $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

described!(
    Path,
    "Path",
    _generator,
    json_schema!({ "description": "A path such as $.a.b[0]; $ is the whole.", "type": "string", "pattern": PATH })
);
described!(
    Locator,
    "Locator",
    _generator,
    json_schema!({
        "description": "Where records are: $.items, or inside the items of one list: $.orders.edges[*].node.",
        "type": "string",
        "pattern": r"^\$.*$",
    })
);
described!(
    Span,
    "Duration",
    _generator,
    json_schema!({ "description": "500ms, 90s, 5m, 12h or 2d.", "type": "string", "pattern": "^\\s*[0-9]+(ms|s|m|h|d)\\s*$" })
);
described!(
    Template,
    "Template",
    _generator,
    json_schema!({
        "description": format!("A text with holes {{{{…}}}} that begin with one of {}.", VARIABLES.join(", ")),
        "type": ["string", "number", "boolean"],
        "pattern": TEMPLATE,
    })
);
described!(
    TimeFormat,
    "TimeFormat",
    _generator,
    json_schema!({
        "description": "How the app writes times: a name, or a pattern such as %d.%m.%Y %H:%M.",
        "anyOf": [
            { "enum": ["rfc3339", "rfc3339-seconds", "unix-seconds", "unix-millis", "sql-utc", "date"] },
            { "type": "string", "pattern": "%" },
        ],
    })
);
described!(
    Times,
    "Times",
    generator,
    json_schema!({
        "description": "How the app writes times; with the zone that they are in, where they do not say it.",
        "anyOf": [
            generator.subschema_for::<TimeFormat>(),
            {
                "type": "object",
                "properties": { "pattern": generator.subschema_for::<TimeFormat>(), "zone": { "type": "string" } },
                "required": ["pattern", "zone"],
                "additionalProperties": false,
            },
        ],
    })
);
described!(Placed, "Anything", _generator, json_schema!(true));
described!(
    Pairs,
    "Texts",
    generator,
    json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<Option<Template>>() })
);
described!(
    Values,
    "Values",
    generator,
    json_schema!({
        "type": "object",
        "additionalProperties": {
            "allOf": [
                generator.subschema_for::<Expression>(),
                { "if": { "type": "string", "pattern": "^[^$]" }, "then": { "pattern": TEMPLATE } },
            ],
        },
    })
);
described!(
    Names,
    "Names",
    generator,
    json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<String>() })
);
described!(
    Paths,
    "Paths",
    generator,
    json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<Path>() })
);
described!(
    Properties,
    "Properties",
    generator,
    json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<Property>() })
);
