//! The command line: definitions only, one file a subcommand.

pub mod add;
pub mod bench;
pub mod completions;
pub mod config;
pub mod dedupe;
pub mod doctor;
pub mod embed;
pub mod export;
pub mod gc;
pub mod help;
pub mod import;
pub mod link;
pub mod list;
pub mod man;
pub mod path;
pub mod pull;
pub mod recommend;
pub mod rm;
pub mod run;
pub mod show;
pub mod status;
pub mod verify;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keep every local AI model once, and run it at once.
#[derive(Debug, Parser)]
#[command(name = "mlx-cache", version, about, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,

    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every subcommand takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct GlobalArgs {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub color: ColorWhen,

    /// Use no colours, as `--color never`
    #[arg(long, global = true, conflicts_with = "color")]
    pub no_color: bool,

    /// Print no progress, notes or warnings
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print more about what is done
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR says otherwise
    #[default]
    Auto,
    Always,
    Never,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::RunArgs>),
    Embed(Box<embed::EmbedArgs>),
    Bench(Box<bench::BenchArgs>),
    Pull(pull::PullArgs),
    Add(add::AddArgs),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Path(path::PathArgs),
    Rm(rm::RmArgs),
    Link(link::LinkArgs),
    Dedupe(dedupe::DedupeArgs),
    Verify(verify::VerifyArgs),
    Gc(gc::GcArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Recommend(recommend::RecommendArgs),
    Config(config::ConfigArgs),
    Doctor(doctor::DoctorArgs),
    Status(status::StatusArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

impl Command {
    /// The name under which reports and errors appear.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Embed(_) => "embed",
            Self::Bench(_) => "bench",
            Self::Pull(_) => "pull",
            Self::Add(_) => "add",
            Self::List(_) => "list",
            Self::Show(_) => "show",
            Self::Path(_) => "path",
            Self::Rm(_) => "rm",
            Self::Link(_) => "link",
            Self::Dedupe(_) => "dedupe",
            Self::Verify(_) => "verify",
            Self::Gc(_) => "gc",
            Self::Export(_) => "export",
            Self::Import(_) => "import",
            Self::Recommend(_) => "recommend",
            Self::Config(_) => "config",
            Self::Doctor(_) => "doctor",
            Self::Status(_) => "status",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }

    /// Whether the command prints events as lines of JSON, of which the last is the envelope.
    pub fn streams_json(&self) -> bool {
        match self {
            Self::Run(args) => args.stream_json,
            Self::Pull(args) => args.progress_json,
            _ => false,
        }
    }

    /// Whether the command was asked for JSON by a flag of its own.
    pub fn prints_json(&self) -> bool {
        self.streams_json() || matches!(self, Self::Bench(args) if args.format == bench::BenchFormat::Json)
    }

    /// Whether the command may change the store: what was cut short there is settled first.
    pub fn changes_the_store(&self) -> bool {
        match self {
            Self::Pull(_) | Self::Add(_) | Self::Rm(_) | Self::Dedupe(_) | Self::Gc(_) | Self::Import(_) => {
                true
            }
            Self::Verify(args) => args.repair,
            Self::Doctor(args) => args.fix,
            _ => false,
        }
    }

    /// Whether the command works with what is readable when config.toml or a variable is broken,
    /// since it is there to tell about that.
    pub fn tolerates_broken_settings(&self) -> bool {
        matches!(self, Self::Doctor(_)) || matches!(self, Self::Config(args) if !args.edits())
    }
}
