//! The command line: reads arguments, runs one sub-command, turns its end into an exit code.
//!
//! Always true: exit code 0 (done), 1 (it failed), 2 (wrong usage); an error is one sentence on stderr. Each sub-command
//! is one file with its `Args` and a `run`. Not here: what a node does (`app`).

mod backup;
mod check;
mod config;
mod connector;
mod demo;
mod doctor;
mod http;
mod keys;
mod listen;
mod node;
mod restore;
mod resume;
mod sandbox;
mod serve;
mod status;
mod stop;
mod verify;
mod workspaces;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// Turns many third-party apps into one stream of signed, unified events.
#[derive(Parser)]
#[command(name = "tidemill", version, propagate_version = true, disable_help_subcommand = true)]
struct Line {
    /// A TOML file that goes over the built-in configuration; the environment goes over both.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node: the API, the polling and the deliveries.
    Serve(serve::Args),
    /// Create, list and delete workspaces.
    #[command(after_help = workspaces::KEY_HELP)]
    Workspaces(workspaces::Args),
    /// Create, list and revoke API keys.
    #[command(after_help = keys::KEY_HELP)]
    Keys(keys::Args),
    /// Make, validate, try and test a connector's folder.
    Connector(connector::Args),
    /// Run a stand-in CRM and shop, with API and webhooks, to try things on.
    Sandbox(sandbox::Args),
    /// Set up a user, a connection and a subscription on a running node, and print each event that arrives.
    Demo(demo::Args),
    /// Print what a subscription would get, or send it on to an address of your own.
    Listen(listen::Args),
    /// Show the worst lanes and connections, and with --node the disk and all workspaces.
    #[command(after_help = status::KEY_HELP)]
    Status(status::Args),
    /// Check the signatures of a delivery.
    Verify(verify::Args),
    /// Make a backup of a running node's store, or of a store that no node has open.
    #[command(after_help = backup::KEY_HELP)]
    Backup(backup::Args),
    /// Put a backup where the store belongs; the node then starts paused.
    Restore(restore::Args),
    /// Let a restored node go on.
    #[command(after_help = backup::KEY_HELP)]
    Resume(resume::Args),
    /// Look for what is wrong around a node: the way to it, clock, disk, master key.
    Doctor(doctor::Args),
    /// Open a store that no node uses, and report its health.
    Check(check::Args),
    /// Print the configuration in force, secrets masked.
    Config(config::Args),
}

/// What a sub-command gets besides its own arguments.
pub(crate) struct Context {
    config: Option<PathBuf>,
    env: Vec<(String, String)>,
}

impl Context {
    /// The configuration in force.
    ///
    /// # Errors
    /// When it cannot be used; the sentence names the place.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.config.as_deref(), self.env.iter().cloned())?)
    }
}

/// Why a sub-command ended badly, as one sentence.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: the arguments make no sense together.
    Usage(String),
}

impl Failure {
    /// The sentence.
    pub(crate) fn sentence(self) -> String {
        match self {
            Self::Failed(text) | Self::Usage(text) => text,
        }
    }
}

impl From<crate::error::Error> for Failure {
    fn from(error: crate::error::Error) -> Self {
        Self::Failed(error.chain())
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a sub-command comes to.
pub(crate) type Outcome = Result<(), Failure>;

/// Writes to stdout; a reader that went away (`| head`) is a good end.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub(crate) fn print(text: &str) -> Outcome {
    is_read(text).map(drop)
}

/// The same for what goes on and on; false when the reader went away.
///
/// # Errors
/// As [`print()`].
pub(crate) fn is_read(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Runs the command that `arguments` (the program's name first) ask for.
pub fn run(arguments: impl Iterator<Item = OsString>, env: Vec<(String, String)>) -> ExitCode {
    let line = match Line::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            // Help and version come this way too, with exit code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let context = Context { config: line.config, env };
    let outcome = match line.command {
        Command::Serve(args) => serve::run(args, &context),
        Command::Workspaces(args) => workspaces::run(args, &context),
        Command::Keys(args) => keys::run(args, &context),
        Command::Connector(args) => connector::run(args, &context),
        Command::Sandbox(args) => sandbox::run(args, &context),
        Command::Demo(args) => demo::run(args, &context),
        Command::Listen(args) => listen::run(args, &context),
        Command::Status(args) => status::run(args, &context),
        Command::Verify(args) => verify::run(args, &context),
        Command::Backup(args) => backup::run(args, &context),
        Command::Restore(args) => restore::run(args, &context),
        Command::Resume(args) => resume::run(args, &context),
        Command::Doctor(args) => doctor::run(args, &context),
        Command::Check(args) => check::run(args, &context),
        Command::Config(args) => config::run(args, &context),
    };
    let (message, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (message, 1),
        Err(Failure::Usage(message)) => (message, 2),
    };
    let _ = writeln!(std::io::stderr(), "tidemill: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(arguments: &[&str]) -> ExitCode {
        let words = std::iter::once("tidemill").chain(arguments.iter().copied());
        run(words.map(OsString::from), Vec::new())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        <Line as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_two_and_failure_is_one() {
        assert_eq!(code(&["no-such-command"]), ExitCode::from(2));
        assert_eq!(code(&["config", "--config", "/nowhere/tidemill.toml"]), ExitCode::from(1));
        assert_eq!(code(&["--help"]), ExitCode::SUCCESS);
    }
}
