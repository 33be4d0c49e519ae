//! The JSON contract: what each command reports, as types. Human output renders the same values.

pub mod add;
pub mod bench;
pub mod completions;
pub mod config;
pub mod dedupe;
pub mod doctor;
pub mod embed;
pub mod export;
pub mod gc;
pub mod import;
pub mod link;
pub mod list;
pub mod man;
pub mod model;
pub mod path;
pub mod pull;
pub mod recommend;
pub mod rm;
pub mod run;
pub mod show;
pub mod status;
pub mod verify;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// Version of the envelope; it grows when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// What a command reports.
pub trait Data: Serialize + JsonSchema {
    /// The process's exit status when the command did its work: not 0 if the work found what it
    /// looked for in a bad state.
    fn exit_status(&self) -> u8 {
        0
    }
}

macro_rules! reports {
    ($($variant:ident $command:literal $data:ty;)*) => {
        /// The report of any command.
        #[derive(Debug, Clone, Serialize)]
        #[serde(untagged)]
        #[allow(clippy::large_enum_variant)] // There is one of them in a process.
        pub enum Report {
            $($variant($data),)*
            /// The chat of `run`, which has shown everything itself.
            Chat,
        }

        impl Report {
            /// The subcommand that makes this report.
            pub fn command(&self) -> &'static str {
                match self { $(Self::$variant(_) => $command,)* Self::Chat => "run" }
            }

            /// The process's exit status.
            pub fn exit_status(&self) -> u8 {
                match self { $(Self::$variant(data) => data.exit_status(),)* Self::Chat => 0 }
            }

            /// Each subcommand with the JSON Schema of what it prints with `--json`.
            pub fn schemas() -> Vec<(&'static str, Schema)> {
                vec![$(($command, schema_of::<Envelope<'static, $data>>()),)*]
            }
        }

        $(impl From<$data> for Report {
            fn from(data: $data) -> Self { Self::$variant(data) }
        })*
    };
}

// One line a subcommand.
reports! {
    Run "run" run::RunData;
    Embed "embed" embed::EmbedReport;
    Bench "bench" bench::BenchReport;
    Pull "pull" pull::PullReport;
    Add "add" add::AddReport;
    List "list" list::ListReport;
    Show "show" show::ShowReport;
    Path "path" path::PathReport;
    Rm "rm" rm::RmReport;
    Link "link" link::LinkReport;
    Dedupe "dedupe" dedupe::DedupeReport;
    Verify "verify" verify::VerifyReport;
    Export "export" export::ExportReport;
    Import "import" import::ImportReport;
    Gc "gc" gc::GcReport;
    Recommend "recommend" recommend::RecommendReport;
    Config "config" config::ConfigReport;
    Doctor "doctor" doctor::DoctorReport;
    Status "status" status::StatusReport;
    Completions "completions" completions::CompletionsReport;
    Man "man" man::ManReport;
}

/// Whether the command could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Error,
}

/// The one object that every command prints with `--json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Envelope<'a, T> {
    /// Version of this envelope.
    pub schema: u32,
    /// `ok` with `data`, or `error` with `error`.
    pub status: Status,
    /// The subcommand; null if the arguments name none.
    pub command: Option<Cow<'a, str>>,
    /// What the command reports; null after an error.
    pub data: Option<T>,
    /// What failed; null if nothing did.
    pub error: Option<ErrorReport>,
}

impl<'a> Envelope<'a, &'a Report> {
    pub fn ok(report: &'a Report) -> Self {
        Self {
            schema: SCHEMA_VERSION,
            status: Status::Ok,
            command: Some(Cow::Borrowed(report.command())),
            data: Some(report),
            error: None,
        }
    }

    pub fn error(command: Option<&'a str>, error: &Error) -> Self {
        Self {
            schema: SCHEMA_VERSION,
            status: Status::Error,
            command: command.map(Cow::Borrowed),
            data: None,
            error: Some(ErrorReport::from(error)),
        }
    }
}

/// A failure.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ErrorReport {
    /// One of the codes of `docs/errors.md`, such as `MODEL_NOT_FOUND`.
    pub code: String,
    /// What failed, on which path or model, and why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Whether the same command may succeed later with nothing changed.
    pub retryable: bool,
    /// Facts for programs, such as the path; which ones depends on the failure.
    pub details: Map<String, Value>,
}

impl From<&Error> for ErrorReport {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().name().to_owned(),
            message: error.message().to_owned(),
            hint: error.hint_text().map(str::to_owned),
            retryable: error.code().retryable(),
            details: error.details().clone(),
        }
    }
}

/// Each kind of line of JSON that a command prints before its report or in place of it, with its schema.
pub fn event_schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("run-event", schema_of::<run::RunEvent>()),
        ("run-batch-result", schema_of::<run::BatchResult>()),
        ("pull-event", schema_of::<pull::PullEvent>()),
    ]
}

/// The schema of the envelope whatever the command.
pub fn envelope_schema() -> Schema {
    schema_of::<Envelope<'static, Value>>()
}

/// The schema of what is written, for a type of the contract.
pub fn schema_of<T: JsonSchema>() -> Schema {
    // The output is described, not what would be accepted as input.
    schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}
