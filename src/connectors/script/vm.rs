//! One call in its own JS runtime: load, invoke, run jobs, take API answers, end.
//!
//! Always true: JavaScript runs only inside [`Vm::guarded`], which counts its CPU time and lets the interrupt handler
//! stop it; between two promise jobs the limits are looked at again, so no chain of jobs runs on after one was hit; after
//! an error the runtime is dropped with everything in it. Not here: threads, queues and waiting (`pool`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rquickjs::context::EvalOptions;
use rquickjs::promise::PromiseState;
use rquickjs::{Coerced, Context, Ctx, Error, Function, Module, Object, Persistent, Promise, Runtime, Value};

use super::host::{self, Host};
use super::{ApiRequest, Kind, Options, Script, ScriptError};

const PRELUDE: &str = include_str!("prelude.js");
/// What the prelude is called in stacks; never a script's file.
const PRELUDE_FILE: &str = "tidemill:prelude";

/// How far a call has come.
pub(super) enum Turn {
    /// It is over; the result is JSON text.
    Done(Result<String, ScriptError>),
    /// It waits for the answers of these calls, and perhaps of earlier ones.
    Waits(Vec<(u32, ApiRequest)>),
}

/// One call of one script.
pub(super) struct Vm {
    // Dropped in this order: values before their context, the context before its runtime.
    promise: Option<Persistent<Promise<'static>>>,
    /// What the prelude gave: `invoke` and `settle`.
    kit: Option<Persistent<Object<'static>>>,
    context: Context,
    runtime: Runtime,
    host: Rc<Host>,
    clock: Rc<CpuClock>,
    file: String,
    result_bytes_max: usize,
}

/// CPU time of one call: what is left, and since when the thread has been working for it.
struct CpuClock {
    left: Cell<Duration>,
    entered: Cell<Duration>,
    deadline: Instant,
}

impl CpuClock {
    fn used(&self) -> Duration {
        thread_cpu_time().saturating_sub(self.entered.get())
    }
}

/// How long this thread has been on a CPU. A busy machine makes a script late, not guilty.
#[expect(unsafe_code, reason = "the C library is the only one to ask")]
fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which is all that the call writes to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// A failure before it has a file.
struct Failure {
    kind: Kind,
    line: Option<u32>,
    message: String,
    /// The number of the API call whose error the script let through.
    api_call: Option<u32>,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, line: None, message: message.into(), api_call: None }
    }
}

impl Vm {
    /// A fresh runtime with its limits, the prelude loaded. `cpu` and `deadline` bound everything that follows.
    pub(super) fn new(options: &Options, script: &Script, deadline: Instant) -> Result<Self, ScriptError> {
        let fail = |_| error_of(&script.file, Failure::new(Kind::Memory, "out of memory"));
        let runtime = Runtime::new().map_err(fail)?;
        runtime.set_max_stack_size(options.stack_bytes_max.get());
        let host = Rc::new(Host::new(options.console_lines_max.get(), options.api_calls_max.get()));
        let left = Cell::new(Duration::from_millis(options.cpu_ms_max.get()));
        let clock = Rc::new(CpuClock { left, entered: Cell::new(Duration::ZERO), deadline });
        let (watched, told) = (Rc::clone(&clock), Rc::clone(&host));
        runtime.set_interrupt_handler(Some(Box::new(move || {
            if watched.used() > watched.left.get() {
                told.trip(Kind::CpuTime);
            } else if Instant::now() > watched.deadline {
                told.trip(Kind::Deadline);
            }
            told.tripped.get().is_some()
        })));
        let context = Context::full(&runtime).map_err(fail)?;
        let mut vm = Self {
            promise: None,
            kit: None,
            context,
            runtime,
            host,
            clock,
            file: script.file.clone(),
            result_bytes_max: options.result_bytes_max.get(),
        };
        let host = Rc::clone(&vm.host);
        let made = |ctx: &Ctx<'_>| Ok(Persistent::save(ctx, prelude(ctx, &host).map_err(|e| thrown(ctx, script, &e))?));
        vm.kit = Some(vm.guarded(made)?);
        // Only now, since the engine dies of an allocation that fails while it sets up its own objects; the memory of a
        // script may run out anywhere.
        vm.runtime.set_memory_limit(options.memory_bytes_max.get());
        Ok(vm)
    }

    /// Everything that runs JavaScript goes through here.
    fn guarded<T>(&self, work: impl FnOnce(&Ctx<'_>) -> Result<T, Failure>) -> Result<T, ScriptError> {
        self.clock.entered.set(thread_cpu_time());
        let outcome = self.context.with(|ctx| work(&ctx));
        self.clock.left.set(self.clock.left.get().saturating_sub(self.clock.used()));
        let failure = match (self.host.tripped.get(), outcome) {
            (None, Ok(value)) => return Ok(value),
            (None, Err(failure)) => failure,
            (Some(kind), outcome) => Failure { line: outcome.err().and_then(|f| f.line), ..tripped(kind) },
        };
        Err(error_of(&self.file, failure))
    }

    /// Loads the script and calls its default export with `input`, a JSON object as text.
    pub(super) fn start(&mut self, script: &Script, input: &str, with_api: bool) -> Result<(), ScriptError> {
        let (host, kit) = (Rc::clone(&self.host), self.kit.clone());
        self.promise = self.guarded(|ctx| {
            let Some(kit) = kit else { return Ok(None) };
            let prepared = || {
                let invoke: Function<'_> = kit.restore(ctx)?.get("invoke")?;
                Ok((invoke, ctx.json_parse(input)?))
            };
            let (invoke, input) = prepared().map_err(|e| thrown(ctx, script, &e))?;
            let function = default_export(ctx, script, &host)?;
            let promise: Promise<'_> = invoke.call((function, input, with_api)).map_err(|e| thrown(ctx, script, &e))?;
            Ok(Some(Persistent::save(ctx, promise)))
        })?;
        Ok(())
    }

    /// Runs what can run, and says how far the call has come.
    pub(super) fn turn(&self, script: &Script) -> Turn {
        let Some(promise) = self.promise.clone() else {
            return Turn::Done(Err(self.error(Kind::Lost)));
        };
        let outcome = self.guarded(|ctx| {
            run_jobs(ctx, &self.host);
            let promise = promise.restore(ctx).map_err(|e| thrown(ctx, script, &e))?;
            if promise.state() == PromiseState::Pending || self.host.tripped.get().is_some() {
                return Ok(None);
            }
            let text: rquickjs::String<'_> = match promise.result() {
                Some(result) => result.map_err(|e| thrown(ctx, script, &e))?,
                None => return Ok(None),
            };
            let text = text.to_string().map_err(|_| Failure::new(Kind::Threw, "the result is not valid text"))?;
            if text.len() > self.result_bytes_max {
                let message = format!("the result has {} bytes, {} are allowed", text.len(), self.result_bytes_max);
                return Err(Failure::new(Kind::ResultSize, message));
            }
            Ok(Some(text))
        });
        match outcome {
            Ok(Some(text)) => Turn::Done(Ok(text)),
            Ok(None) => Turn::Waits(self.host.outbox.take()),
            Err(error) => Turn::Done(Err(error)),
        }
    }

    /// Hands the answer of an API call to the script.
    pub(super) fn answer(&self, script: &Script, id: u32, good: bool, text: &str) -> Result<(), ScriptError> {
        let Some(kit) = self.kit.clone() else { return Err(self.error(Kind::Lost)) };
        self.guarded(|ctx| {
            let settle = || kit.restore(ctx)?.get::<_, Function<'_>>("settle")?.call::<_, ()>((id, good, text));
            settle().map_err(|e| thrown(ctx, script, &e))
        })
    }

    /// What the script printed.
    pub(super) fn take_console(&self) -> Vec<String> {
        self.host.take_console()
    }

    /// An error of this call that JavaScript did not make.
    pub(super) fn error(&self, kind: Kind) -> ScriptError {
        error_of(&self.file, tripped(kind))
    }
}

/// Loads a script, and nothing more.
pub(super) fn check(options: &Options, script: &Script) -> Result<(), ScriptError> {
    let vm = Vm::new(options, script, Instant::now() + Duration::from_millis(options.deadline_ms.get()))?;
    vm.guarded(|ctx| default_export(ctx, script, &vm.host).map(|_| ()))
}

fn prelude<'js>(ctx: &Ctx<'js>, host: &Rc<Host>) -> rquickjs::Result<Object<'js>> {
    let lent = host::object(ctx, host)?;
    let mut options = EvalOptions::default();
    options.filename = Some(PRELUDE_FILE.to_owned());
    ctx.eval_with_options::<Function<'_>, _>(PRELUDE, options)?.call((lent,))
}

/// Promise jobs, until none is left or a limit is hit.
fn run_jobs(ctx: &Ctx<'_>, host: &Host) {
    while host.tripped.get().is_none() && ctx.execute_pending_job() {}
}

fn default_export<'js>(ctx: &Ctx<'js>, script: &Script, host: &Host) -> Result<Function<'js>, Failure> {
    let loading = |e: &Error| match thrown(ctx, script, e) {
        failure if failure.kind == Kind::Threw => Failure { kind: Kind::Load, ..failure },
        failure => failure,
    };
    let declared = Module::declare(ctx.clone(), script.file.as_str(), script.source.as_str());
    let (module, loaded) = declared.and_then(Module::eval).map_err(|e| loading(&e))?;
    run_jobs(ctx, host);
    match loaded.result::<()>() {
        Some(outcome) => outcome.map_err(|e| loading(&e))?,
        None => return Err(Failure::new(Kind::Load, "the module waits for something that never comes")),
    }
    let export: Value<'_> = module.get("default").map_err(|e| loading(&e))?;
    if export.is_undefined() {
        return Err(Failure::new(Kind::Load, "there is no default export; write `export default async function …`"));
    }
    Function::from_value(export).map_err(|_| Failure::new(Kind::Load, "the default export is not a function"))
}

/// What an engine error means: the pending exception, or the engine's own failure.
fn thrown(ctx: &Ctx<'_>, script: &Script, error: &Error) -> Failure {
    if !matches!(error, Error::Exception) {
        let kind = if matches!(error, Error::Allocation | Error::Unknown) { Kind::Memory } else { Kind::Threw };
        return Failure::new(kind, error.to_string());
    }
    let value = ctx.catch();
    let Some(object) = value.as_object() else {
        // With no memory left for an error object, the engine throws null.
        let kind = if value.is_null() { Kind::Memory } else { Kind::Threw };
        let text = value.get::<Coerced<String>>().map_or_else(|_| "an unprintable value".to_owned(), |text| text.0);
        return Failure::new(kind, if kind == Kind::Memory { "out of memory".to_owned() } else { text });
    };
    let field = |name: &str| object.get::<_, Option<Coerced<String>>>(name).ok().flatten().map(|text| text.0);
    let message = field("message").filter(|text| !text.is_empty());
    let message = match (field("name"), message) {
        (Some(name), Some(message)) if object.is_error() => format!("{name}: {message}"),
        (_, Some(message)) => message,
        (Some(name), None) => name,
        (None, None) => value.get::<Coerced<String>>().map_or_else(|_| "an unprintable value".to_owned(), |t| t.0),
    };
    let kind = match message.as_str() {
        "InternalError: out of memory" => Kind::Memory,
        "RangeError: Maximum call stack size exceeded" | "InternalError: stack overflow" => Kind::Stack,
        _ => Kind::Threw,
    };
    let line = field("stack").and_then(|stack| line_in(&stack, &script.file));
    let api_call = object.get::<_, Option<u32>>("apiCall").ok().flatten();
    Failure { kind, line, message: cut(message), api_call }
}

/// A script may throw a novel; an inbox row keeps its beginning.
fn cut(mut message: String) -> String {
    const MESSAGE_BYTES_MAX: usize = 2048;
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    message
}

/// The line of the innermost frame of `stack` that is in `file`: frames read `at name (file:line:column)`.
fn line_in(stack: &str, file: &str) -> Option<u32> {
    let (_, after) = stack.split_once(&format!("{file}:"))?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn tripped(kind: Kind) -> Failure {
    let message = match kind {
        Kind::CpuTime => "stopped: it used up its CPU time",
        Kind::Deadline => "stopped: it was not done in time",
        Kind::ApiCalls => "stopped: it made too many apiClient calls",
        Kind::Stalled => "it waits for a promise that nothing can settle any more",
        Kind::Busy => "too many scripts wait for a thread",
        Kind::Lost => "its thread was lost",
        _ => "stopped",
    };
    Failure::new(kind, message)
}

fn error_of(file: &str, failure: Failure) -> ScriptError {
    let Failure { kind, line, message, api_call } = failure;
    ScriptError { kind, file: file.to_owned(), line, message, cause: None, api_call }
}
