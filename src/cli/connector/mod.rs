//! `tidemill connector`: make, validate, try and test a connector's folder.

mod run;

use std::path::PathBuf;

use clap::Subcommand;

use super::{Context, Failure, Outcome, print};
use crate::app::offline::{check_connector, connector_schemas, new_connector, test_connector};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make a small connector to start from.
    New {
        /// Its key, which is the folder's name: lower-case letters, digits and hyphens
        key: String,
        /// The folder to make it in
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        dir: PathBuf,
    },
    /// Validate connectors: every file, name and script. Without a folder: the built-in ones and those of
    /// connectors.path.
    Check {
        /// Folders of connectors
        folders: Vec<PathBuf>,
    },
    /// Run a connector against a real account, and print the unified records
    #[command(after_help = run::HELP)]
    Run(run::Args),
    /// Write JSON Schemas of a connector's YAML files, for editors
    Schemas {
        /// The folder to write them into
        #[arg(value_name = "FOLDER", default_value = ".schemas")]
        folder: PathBuf,
    },
    /// Run the tests in a connector's tests folder.
    Test {
        /// The connector's folder, or the key of one that is installed
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let config = context.config()?;
    match args.what {
        What::New { key, dir } => {
            let folder = new_connector(&dir, &key)?;
            print(&format!(
                "{} is made. Next:\n  tidemill connector check {0}\n  tidemill connector test {0}\n  tidemill connector run {0} --credentials FILE\n",
                folder.display()
            ))
        }
        What::Run(args) => run::run(args, config, context),
        What::Schemas { folder } => print(&connector_schemas(&folder)?),
        What::Check { folders } => print(&check_connector(&config, &folders)?),
        What::Test { folders } => {
            let report = test_connector(&config, &folders)?;
            print(&report.text)?;
            match report.failed {
                0 => Ok(()),
                1 => Err(Failure::Failed("1 test failed".to_owned())),
                failed => Err(Failure::Failed(format!("{failed} tests failed"))),
            }
        }
    }
}
