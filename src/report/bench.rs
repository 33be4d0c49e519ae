//! The report of `bench`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Data;

/// What was measured, and what it was held against.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BenchReport {
    /// Where it was measured; null for `--history`.
    pub environment: Option<BenchEnvironment>,
    /// The models that were measured.
    pub models: Vec<BenchModel>,
    /// Each test of each model, and of each peer.
    pub results: Vec<BenchResult>,
    /// Ours against each peer that was measured in turn.
    pub peers: Vec<BenchRatio>,
    /// What was compared with; null without `--compare`.
    pub baseline: Option<BenchBaseline>,
    /// Kept results, newest first, for `--history`.
    pub history: Vec<BenchRecord>,
    /// How the text form looks.
    #[serde(skip)]
    #[schemars(skip)]
    pub form: BenchForm,
}

/// How the text form looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BenchForm {
    #[default]
    Table,
    Markdown,
    Csv,
    Json,
}

/// The machine and the program, as far as they can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BenchEnvironment {
    /// Version of mlx-cache.
    pub version: String,
    /// The processor.
    pub cpu: Option<String>,
    /// Processor architecture, such as `x86_64`.
    pub arch: String,
    /// Physical cores.
    pub cores: Option<usize>,
    /// Threads that computed.
    pub threads: Option<usize>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The operating system.
    pub os: String,
    /// `cpu`, or the GPU's name; `disk` for `--store`.
    pub device: String,
    /// MLX's version.
    pub mlx: Option<String>,
    /// What multiplies matrices on the CPU where MLX does.
    pub blas: Option<String>,
    /// What the engine was told by flags, such as `--kv-bits 4`; empty where nothing was.
    #[serde(default)]
    pub flags: Vec<String>,
    /// `mains` or `battery`, where the system tells.
    pub power: Option<String>,
    /// The hottest sensor in degrees Celsius when the measurement began, where the system tells.
    pub temperature_c: Option<f64>,
    /// Average number of runnable processes in the minute before: above 0, others were at work.
    pub load_average: f64,
}

/// A model that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BenchModel {
    /// Its name or path.
    pub reference: String,
    /// The commit, or the name that content gives itself; null for a model that is not registered.
    pub revision: Option<String>,
    /// SHA-256 of its largest file; null for a model that is not registered.
    pub digest: Option<String>,
    /// `model_type` of config.json or `general.architecture` of a GGUF.
    pub architecture: Option<String>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Such as `Q4_1`, `4-bit (group 64)` or `bf16`; with `--quantize`, what the weights were packed to.
    pub quantization: Option<String>,
    /// Size of its files.
    pub bytes: u64,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BenchResult {
    /// The model, or the peer that was measured in turn; `store` for `--store`.
    pub model: String,
    /// `pp<N>`, `tg<N>` and `ttft<N>`, with `@d<N>` where the cache held tokens; `emb<N>` and `texts<N>` of an
    /// embedding model, for texts of N tokens; with `@b<N>` where N sequences were computed at once, which the
    /// speed is of together, and with `/seq` behind it that of each; `load` with the files in
    /// the page cache, `load-cold` without, each as often as the tests as far as three seconds suffice; `peak_memory`
    /// since the model began to load; `kv_cache` of the longest test. With `--store`: `write` of content
    /// that is on disk afterwards; `hash` of content in the page cache, `hash-cold` without; `copy` as `add --copy`
    /// does it, with hashing; `clone`, where the filesystem shares blocks; `link`, a hard link and a symlink to it;
    /// `registry-write` in one transaction, `registry-read`.
    pub test: String,
    /// `tokens/s`, `texts/s`, `s` or `bytes`; with `--store` also `MB/s`, `links/s` and `rows/s`.
    pub unit: String,
    /// Arithmetic mean of the samples.
    pub mean: f64,
    /// Standard deviation of the samples; 0 for one.
    pub stddev: f64,
    /// The least sample.
    pub min: f64,
    /// The middle sample.
    pub median: f64,
    /// 95 of 100 samples are at most this.
    pub p95: f64,
    /// The greatest sample.
    pub max: f64,
    /// Whether the samples differ so much (standard deviation above 5 % of the mean) that the mean says little.
    pub noisy: bool,
    /// Every sample, in the order in which they were taken.
    pub samples: Vec<f64>,
}

/// Ours against a peer, from rounds in which both were measured in turn.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BenchRatio {
    /// Our model.
    pub model: String,
    /// The peer.
    pub peer: String,
    /// What the peer says of itself, such as its version and the model's quantization; null for a command.
    pub about: Option<String>,
    /// The test.
    pub test: String,
    /// Median of the rounds' ratios, ours to the peer's: above 1, ours is faster.
    pub ratio: f64,
    /// The least ratio of a round.
    pub min: f64,
    /// The greatest ratio of a round.
    pub max: f64,
}

/// What was compared with.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BenchBaseline {
    /// Where it comes from: the number of a kept result, or a file.
    pub from: String,
    /// When it was measured, where that is known.
    #[schemars(with = "Option<String>")]
    pub measured_at: Option<Timestamp>,
    /// Each test that both have.
    pub changes: Vec<BenchChange>,
    /// Whether a test got worse by more than `--fail-on-regression` and by more than the noise.
    pub regression: bool,
}

/// One test, now and then.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BenchChange {
    /// The model.
    pub model: String,
    /// The test.
    pub test: String,
    /// The mean then.
    pub before: f64,
    /// The mean now.
    pub now: f64,
    /// Change in percent: above 0, it became better (faster, shorter, smaller).
    pub better_percent: f64,
    /// Two standard errors of the difference, in percent of the mean then: smaller changes are noise.
    /// Null for a time that was measured once, which says nothing about its noise.
    pub noise_percent: Option<f64>,
    /// Whether it counts as a regression.
    pub regression: bool,
}

/// A kept result.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BenchRecord {
    /// Its number, for `--compare`.
    pub number: i64,
    /// When it was measured.
    #[schemars(with = "String")]
    pub measured_at: Timestamp,
    /// Where it was measured.
    pub environment: BenchEnvironment,
    /// The model.
    pub model: BenchModel,
    /// Its tests.
    pub results: Vec<BenchResult>,
}

impl Data for BenchReport {
    fn exit_status(&self) -> u8 {
        u8::from(self.baseline.as_ref().is_some_and(|baseline| baseline.regression))
    }
}
