//! Whether and how a model runs on this machine: device, computing type, context and the memory gate.

use std::fmt;

use crate::engine::cache::{self, CacheOptions, LayerShape};
use crate::engine::format::weight::FloatType;
use crate::engine::layers::Backend;
use crate::engine::layers::ahead::LAYERS_AHEAD;
use crate::engine::probe::{Demand, Steps, Working};
use crate::engine::request::{DeviceChoice, LoadOptions};
use crate::error::{Code, Error, Result};
use crate::ids::Bytes;

/// The share of the free memory above which a load is warned about.
const TIGHT: f64 = 0.7;
/// A context that is worth having even where memory is tight, in tokens.
const LEAST_CONTEXT: usize = 4096;
/// Reduced contexts are multiples of this.
const CONTEXT_STEP: usize = 256;
/// What the process grows by until it computes: threads, and what the libraries take for themselves (measured on
/// Linux).
const STARTING: u64 = 8 << 20;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Bytes that can be taken without swapping.
    pub free_memory: u64,
    pub total_memory: u64,
    /// Bytes that this process holds already: itself and its libraries.
    pub resident: u64,
    /// Whether MLX has a GPU here.
    pub gpu: bool,
}

impl Machine {
    /// Asks the system, and the control group that this process is in.
    pub fn detect(gpu: bool) -> Result<Self> {
        use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System};

        let failed = |e: sysinfo::Error| Error::internal(format!("cannot ask for the free memory: {e}"));
        let mut system = System::new().map_err(failed)?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let mut machine = Self {
            free_memory: system.available_memory(),
            total_memory: system.total_memory(),
            resident: 0,
            gpu,
        };
        if let Ok(this) = sysinfo::get_current_pid() {
            let which = ProcessesToUpdate::Some(&[this]);
            system.refresh_processes_specifics(which, false, ProcessRefreshKind::nothing().with_memory());
            let process = system.process(this);
            machine.resident = process.map_or(0, sysinfo::Process::memory);
            if let Some(limits) = process.and_then(sysinfo::Process::cgroup_limits) {
                // Not the group's own figure of free memory: that counts cached file pages as used,
                // among them those of the model.
                let free = limits.total_memory.saturating_sub(limits.rss);
                machine.free_memory = machine.free_memory.min(free);
                machine.total_memory = machine.total_memory.min(limits.total_memory);
            }
        }
        Ok(machine)
    }
}

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    Gpu,
    Cpu,
}

/// Something a user should know before the model is loaded.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// The context was made smaller than the model's, to fit the memory.
    ContextReduced { from: usize, to: usize },
    /// The asked context is larger than what the model was made for.
    ContextBeyondModel { asked: usize, model: usize },
    /// The model takes much of the free memory.
    MemoryTight { estimate: u64, free: u64 },
    /// The model takes more than there is, and was forced.
    MemoryExceeded { estimate: u64, available: u64 },
    /// The model was made for images or sounds, too.
    TextOnly,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContextReduced { from, to } => {
                write!(f, "the context is reduced from {from} to {to} tokens to fit the free memory")
            }
            Self::ContextBeyondModel { asked, model } => {
                write!(
                    f,
                    "the context of {asked} tokens is more than the {model} that the model was made for"
                )
            }
            Self::MemoryTight { estimate, free } => {
                write!(f, "the model needs {} of the {} of free memory", Bytes(*estimate), Bytes(*free))
            }
            Self::MemoryExceeded { estimate, available } => write!(
                f,
                "the model needs {}, more than the {} available; loading it as asked",
                Bytes(*estimate),
                Bytes(*available)
            ),
            Self::TextOnly => {
                f.write_str("the text part of the model runs alone: it takes no images and no sounds here")
            }
        }
    }
}

/// How a model will be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub device: Device,
    /// The type to compute in: the checkpoint's on a GPU, float32 on the CPU, where MLX's half
    /// precision is far slower.
    pub dtype: FloatType,
    /// Tokens that generation may not pass.
    pub context: usize,
    /// Of the draft model, too.
    pub weights_bytes: u64,
    pub cache: CachePlan,
    /// The caches of full contexts, as many as are answered at a time and fit, and that of the draft model.
    pub cache_bytes: u64,
    /// What a step computes, and the tokenizer.
    pub working_bytes: u64,
    /// Most bytes that the caches of sequences that are generated together may have: at least one of a full
    /// context.
    pub cache_room: u64,
    /// The most that the process will hold: all of these, and what it holds already.
    pub estimate_bytes: u64,
    pub warnings: Vec<Warning>,
}

/// What the cache will take.
#[derive(Debug, Clone, PartialEq)]
pub struct CachePlan {
    pub layers: Vec<LayerShape>,
    pub options: CacheOptions,
    /// Type in which keys and values are computed.
    pub dtype: FloatType,
    pub backend: Backend,
}

impl CachePlan {
    /// Bytes for so many tokens.
    pub fn bytes(&self, tokens: usize) -> u64 {
        let step = match self.backend {
            // Room that is not used yet takes no memory.
            Backend::Kernels => 1,
            Backend::Stock => self.options.step,
        };
        cache::bytes(&self.layers, tokens, self.dtype.size(), &CacheOptions { step, ..self.options })
    }
}

/// What a model takes beside its weights, and a draft model with it.
struct Needs<'a> {
    cache: &'a CachePlan,
    working: Working,
    /// Most tokens of a step.
    step: usize,
    size: usize,
    /// Sequences that are computed at a time, if there are so many.
    sequences: usize,
    draft: Option<DraftNeeds>,
}

/// What a draft model takes beside its weights.
struct DraftNeeds {
    cache: CachePlan,
    /// The context that it was made for.
    context: usize,
}

impl Needs<'_> {
    /// The cache of the draft model.
    fn draft_cache(&self, context: usize) -> u64 {
        self.draft.as_ref().map_or(0, |draft| draft.cache.bytes(context.min(draft.context)))
    }

    /// The caches of one sequence.
    fn cache(&self, context: usize) -> u64 {
        self.cache.bytes(context).saturating_add(self.draft_cache(context))
    }

    /// Tokens that are computed in all, as far as that is known.
    fn tokens(&self, context: usize) -> usize {
        match self.working.steps {
            Steps::Prompts => context.saturating_mul(self.sequences),
            Steps::Texts(all) => all,
        }
    }

    /// What steps compute, and the tokenizer. That of a draft model is gone once it is compared.
    fn working(&self, context: usize) -> u64 {
        let step = self.tokens(context).min(self.step);
        let ahead = self.working.layers.min(LAYERS_AHEAD);
        let mut bytes = (self.working.numbers * self.size) as u64 * (step * ahead) as u64;
        if self.working.steps == Steps::Prompts && self.tokens(context) > self.step {
            // The last step of a longer prompt is shorter, and does not fit where the others' results were.
            bytes += bytes / 2;
        }
        bytes.saturating_add(self.working.tokens as u64 * TOKEN_BYTES)
    }

    fn all(&self, context: usize) -> u64 {
        self.cache(context).saturating_add(self.working(context))
    }

    /// What `bytes` leave for the caches of several sequences, at least one of a full context.
    fn cache_room(&self, bytes: u64, context: usize) -> u64 {
        let rest = bytes.saturating_sub(self.draft_cache(context)).saturating_sub(self.working(context));
        rest.max(self.cache.bytes(context))
    }

    /// The largest context up to `most` tokens that fits into `bytes`, in whole steps.
    fn fitting_context(&self, bytes: u64, most: usize) -> usize {
        let (mut fits, mut exceeds) = (0, most / CONTEXT_STEP + 1);
        while exceeds - fits > 1 {
            let steps = fits.midpoint(exceeds);
            if self.all(steps * CONTEXT_STEP) <= bytes { fits = steps } else { exceeds = steps }
        }
        fits * CONTEXT_STEP
    }
}

/// Bytes that a tokenizer holds for each token: its text twice, its id, its merge (measured with 49,152 tokens).
const TOKEN_BYTES: u64 = 280;

/// Decides how to run a model.
///
/// # Errors
/// HARDWARE_INCOMPATIBLE if a GPU is asked for where there is none; INVALID_REQUEST for a context of
/// zero and for a cache that the model cannot have; INSUFFICIENT_MEMORY if all that is needed is more than the
/// memory, unless forced.
pub fn decide(machine: &Machine, options: &LoadOptions, demand: &Demand) -> Result<Policy> {
    let device = device(machine, options.device)?;
    let dtype = match device {
        Device::Gpu => demand.dtype,
        Device::Cpu => FloatType::F32,
    };
    let backend = Backend::of(device == Device::Gpu);
    let kernels = backend == Backend::Kernels;
    let draft = demand.draft.as_deref();
    options.cache.check(&demand.cache)?;
    let cache = CachePlan { layers: demand.cache.clone(), options: options.cache, dtype, backend };
    let of_draft = |draft: &Demand| DraftNeeds {
        cache: CachePlan { layers: draft.cache.clone(), options: options.cache.of_draft(), dtype, backend },
        context: draft.context,
    };
    let sequences = options.sequences.unwrap_or(1).max(1);
    let needs = Needs {
        cache: &cache,
        working: demand.working,
        step: demand.working.steps.longest(device == Device::Gpu),
        size: dtype.size(),
        sequences,
        draft: draft.map(of_draft),
    };
    let looked_up = needs.tokens(options.context.unwrap_or(demand.context));
    let weights_bytes = demand.weights.bytes(kernels, dtype, looked_up);
    let weights_bytes =
        weights_bytes.saturating_add(draft.map_or(0, |draft| draft.weights.bytes(kernels, dtype, 0)));

    let available = options.memory_limit.map_or(machine.free_memory, |limit| limit.min(machine.free_memory));
    let comfortable = ((machine.free_memory as f64 * TIGHT) as u64).min(available);
    let mut warnings = Vec::new();
    let context = match options.context {
        Some(0) => {
            return Err(Error::new(Code::InvalidRequest, "a context of 0 tokens holds nothing")
                .hint("ask for at least one token"));
        }
        Some(asked) => {
            if asked > demand.context {
                warnings.push(Warning::ContextBeyondModel { asked, model: demand.context });
            }
            asked
        }
        None => {
            let room = comfortable.saturating_sub(weights_bytes);
            let context = if needs.all(demand.context) <= room {
                demand.context
            } else {
                demand.context.min(needs.fitting_context(room, demand.context).max(LEAST_CONTEXT))
            };
            if context < demand.context {
                warnings.push(Warning::ContextReduced { from: demand.context, to: context });
            }
            context
        }
    };
    let working_bytes = needs.working(context);
    let cache_room = needs.cache_room(comfortable.saturating_sub(weights_bytes), context);
    let caches = cache.bytes(context).saturating_mul(sequences as u64).min(cache_room);
    let cache_bytes = caches.saturating_add(needs.draft_cache(context));
    let needed = weights_bytes.saturating_add(cache_bytes).saturating_add(working_bytes);
    let estimate_bytes = needed.saturating_add(machine.resident + STARTING);
    let policy = Policy {
        device,
        dtype,
        context,
        weights_bytes,
        cache,
        cache_bytes,
        working_bytes,
        cache_room,
        estimate_bytes,
        warnings,
    };
    gate(policy, needed, available, options, machine)
}

/// Refuses what does not fit, and warns of what nearly does not.
fn gate(
    mut policy: Policy,
    needed: u64,
    available: u64,
    options: &LoadOptions,
    machine: &Machine,
) -> Result<Policy> {
    if needed > available {
        if !options.force {
            return Err(insufficient(&policy, available, options, machine));
        }
        policy.warnings.push(Warning::MemoryExceeded { estimate: needed, available });
    } else if needed as f64 > machine.free_memory as f64 * TIGHT {
        policy.warnings.push(Warning::MemoryTight { estimate: needed, free: machine.free_memory });
    }
    Ok(policy)
}

fn device(machine: &Machine, choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto if !machine.gpu => Ok(Device::Cpu),
        DeviceChoice::Gpu if !machine.gpu => {
            Err(Error::new(Code::HardwareIncompatible, "MLX has no GPU on this machine")
                .hint("use --device cpu, or leave the device to mlx-cache"))
        }
        DeviceChoice::Auto | DeviceChoice::Gpu => Ok(Device::Gpu),
    }
}

fn insufficient(policy: &Policy, available: u64, options: &LoadOptions, machine: &Machine) -> Error {
    let Policy { weights_bytes: weights, cache_bytes: cache, working_bytes: working, context, .. } = *policy;
    let limited = options.memory_limit.is_some_and(|limit| limit < machine.free_memory);
    let memory = Bytes(available);
    let room =
        if limited { format!("the memory limit allows {memory}") } else { format!("{memory} are free") };
    let smaller = if weights > available {
        "use a smaller or more strongly quantized model"
    } else {
        "ask for a smaller --context"
    };
    let more = if limited { "raise the limit" } else { "close other programs" };
    Error::new(
        Code::InsufficientMemory,
        format!(
            "the model needs {} for its weights, {} for {context} tokens of context and {} to work with, but {room}",
            Bytes(weights),
            Bytes(cache),
            Bytes(working)
        ),
    )
    .hint(format!("{smaller}, {more}, or load it anyway with --force"))
    .detail("weights_bytes", weights)
    .detail("cache_bytes", cache)
    .detail("working_bytes", working)
    .detail("estimate_bytes", policy.estimate_bytes)
    .detail("context", context as u64)
    .detail("available_bytes", available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cache::{KvQuantization, TokenShape, Values};
    use crate::engine::format::sizes::WeightSizes;

    const GB: u64 = 1_000_000_000;

    /// 8 GB packed and 1 GB of float16, which the kernels keep; a thousand tokens of cache take 0.1 GB in float16.
    fn demand() -> Demand {
        Demand {
            weights: WeightSizes {
                kernel_bytes: 9 * GB,
                packed_bytes: 8 * GB,
                floats: GB / 2,
                ..WeightSizes::default()
            },
            cache: vec![LayerShape::Tokens(TokenShape {
                heads: 1,
                key_dim: 25_000,
                values: Values::Own(25_000),
                window: None,
            })],
            context: 131_072,
            dtype: FloatType::F16,
            working: Working::default(),
            draft: None,
        }
    }

    fn machine(free_gb: u64, gpu: bool) -> Machine {
        Machine { free_memory: free_gb * GB, total_memory: 2 * free_gb * GB, resident: 0, gpu }
    }

    fn asked(context: usize) -> LoadOptions {
        let cache = CacheOptions { step: 1, ..CacheOptions::AS_COMPUTED };
        LoadOptions { context: Some(context), cache, ..LoadOptions::default() }
    }

    #[test]
    fn a_gpu_keeps_the_type_and_a_cpu_computes_in_float32() {
        let gpu = decide(&machine(100, true), &asked(1000), &demand()).unwrap();
        assert_eq!((gpu.device, gpu.dtype), (Device::Gpu, FloatType::F16));
        assert_eq!((gpu.weights_bytes, gpu.cache_bytes), (9 * GB, GB / 10));
        assert_eq!(gpu.estimate_bytes, gpu.weights_bytes + gpu.cache_bytes + STARTING);
        let cpu = LoadOptions { device: DeviceChoice::Cpu, ..asked(1000) };
        let cpu = decide(&machine(100, true), &cpu, &demand()).unwrap();
        assert_eq!((cpu.device, cpu.dtype), (Device::Cpu, FloatType::F32));
        // The kernels of the Linux CPU keep 16-bit weights; MLX's own operations would widen them.
        let weights = if cfg!(target_os = "linux") { 9 * GB } else { 10 * GB };
        assert_eq!((cpu.weights_bytes, cpu.cache_bytes), (weights, GB / 5));
        assert_eq!(decide(&machine(100, false), &asked(1), &demand()).unwrap().device, Device::Cpu);
        let gpu = LoadOptions { device: DeviceChoice::Gpu, ..asked(1) };
        let error = decide(&machine(100, false), &gpu, &demand()).unwrap_err();
        assert_eq!(error.code(), Code::HardwareIncompatible);
    }

    #[test]
    fn more_than_the_free_memory_is_refused_unless_forced() {
        let error = decide(&machine(9, true), &asked(1000), &demand()).unwrap_err();
        assert_eq!(error.code(), Code::InsufficientMemory);
        assert!(error.message().contains("9.0 GB for its weights, 100 MB for 1000 tokens"), "{error}");
        assert_eq!(error.details()["available_bytes"], 9 * GB);
        let forced = LoadOptions { force: true, ..asked(1000) };
        let policy = decide(&machine(9, true), &forced, &demand()).unwrap();
        assert!(matches!(policy.warnings[..], [Warning::MemoryExceeded { .. }]));
    }

    #[test]
    fn much_of_the_free_memory_is_warned_about() {
        let warnings = |free| decide(&machine(free, true), &asked(1000), &demand()).unwrap().warnings;
        assert_eq!(warnings(14), []);
        let tight = warnings(12);
        assert!(matches!(tight[..], [Warning::MemoryTight { .. }]));
        assert_eq!(tight[0].to_string(), "the model needs 9.1 GB of the 12.0 GB of free memory");
    }

    #[test]
    fn a_limit_counts_like_less_memory_and_never_like_more() {
        let limited = |limit| LoadOptions { memory_limit: Some(limit), ..asked(1000) };
        let error = decide(&machine(100, true), &limited(9 * GB), &demand()).unwrap_err();
        assert!(error.message().contains("but the memory limit allows 9.0 GB"), "{error}");
        assert!(decide(&machine(100, true), &limited(10 * GB), &demand()).unwrap().warnings.is_empty());
        let error = decide(&machine(9, true), &limited(100 * GB), &demand()).unwrap_err();
        assert!(error.message().contains("9.0 GB are free"), "{error}");
    }

    #[test]
    fn without_a_wish_the_context_is_what_memory_allows() {
        let decide = |free| decide(&machine(free, true), &LoadOptions::default(), &demand());
        let whole = decide(100).unwrap();
        assert_eq!((whole.context, whole.warnings.len()), (131_072, 0));
        // 14 GB at most are used: 5 GB of cache, 50,000 tokens.
        let reduced = decide(20).unwrap();
        assert_eq!(reduced.context, 49_920);
        assert_eq!(reduced.warnings, [Warning::ContextReduced { from: 131_072, to: 49_920 }]);
        let least = decide(10).unwrap();
        assert_eq!(least.context, LEAST_CONTEXT);
        assert!(matches!(least.warnings[..], [Warning::ContextReduced { .. }, Warning::MemoryTight { .. }]));
        assert_eq!(decide(9).unwrap_err().code(), Code::InsufficientMemory);
    }

    #[test]
    fn what_is_computed_and_a_draft_model_count_as_well() {
        let plain = decide(&machine(100, true), &asked(1000), &demand()).unwrap();
        let mut more = demand();
        more.working = Working { numbers: 1000, layers: 30, tokens: 50_000, ..Working::default() };
        let working = decide(&machine(100, true), &asked(400), &more).unwrap().working_bytes;
        // Four layers of 400 tokens in float16, and the tokenizer.
        assert_eq!(working, 4 * 400 * 1000 * 2 + 50_000 * 280);
        let long = decide(&machine(100, true), &asked(1000), &more).unwrap();
        assert_eq!(long.working_bytes, 4 * 512 * 1000 * 2 / 2 * 3 + 50_000 * 280);
        assert_eq!(long.estimate_bytes, plain.estimate_bytes + long.working_bytes);
        more.draft = Some(Box::new(Demand { context: 500, ..demand() }));
        let both = decide(&machine(100, true), &asked(1000), &more).unwrap();
        assert_eq!(both.weights_bytes, 2 * plain.weights_bytes);
        // Its cache grows in whole steps, up to the context that it was made for.
        let own = CachePlan { options: CacheOptions::AS_COMPUTED, ..plain.cache.clone() }.bytes(500);
        assert_eq!(both.cache_bytes, plain.cache_bytes + own);
        // Those of several sequences count, as far as there is room for them.
        let several = |sequences| LoadOptions { sequences: Some(sequences), ..asked(1000) };
        let four = decide(&machine(100, true), &several(4), &demand()).unwrap();
        assert_eq!(four.cache_bytes, 4 * plain.cache_bytes);
        let all = decide(&machine(100, true), &several(1_000_000), &demand()).unwrap();
        assert_eq!((all.cache_bytes, all.warnings.len()), (all.cache_room, 0));
        // What is left for several sequences is less by all of that.
        let less = plain.weights_bytes + own + both.working_bytes;
        assert_eq!(both.cache_room, plain.cache_room - less);
    }

    #[test]
    fn contexts_that_make_no_sense_are_named() {
        let error = decide(&machine(100, true), &asked(0), &demand()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidRequest);
        let beyond = decide(&machine(100, true), &asked(200_000), &demand()).unwrap();
        assert_eq!(beyond.warnings, [Warning::ContextBeyondModel { asked: 200_000, model: 131_072 }]);
        let error = decide(&machine(100, true), &asked(usize::MAX), &demand()).unwrap_err();
        assert_eq!(error.code(), Code::InsufficientMemory, "no overflow");
    }

    #[test]
    fn a_packed_or_limited_cache_leaves_room_for_more_context() {
        let mut small = demand();
        small.cache = vec![LayerShape::Tokens(TokenShape {
            heads: 8,
            key_dim: 128,
            values: Values::Own(128),
            window: None,
        })];
        // A context of whole steps.
        let decide = |cache| {
            let options = LoadOptions { cache, ..asked(102_400) };
            decide(&machine(100, true), &options, &small)
        };
        let plain = decide(CacheOptions::AS_COMPUTED).unwrap().cache_bytes;
        let packed =
            CacheOptions { quantization: KvQuantization::new(4, 64).ok(), ..CacheOptions::AS_COMPUTED };
        let packed = decide(packed).unwrap().cache_bytes;
        // Of 64 numbers with 2 bytes each, half a byte each with scale and bias.
        assert_eq!(packed * 128, plain * 36);
        // A GPU computes in 16 bits here, a CPU in float32.
        let half = CacheOptions { half: true, ..CacheOptions::AS_COMPUTED };
        assert_eq!(decide(half).unwrap().cache_bytes, plain);
        let on_cpu = |cache| {
            let options = LoadOptions { cache, device: DeviceChoice::Cpu, ..asked(102_400) };
            super::decide(&machine(100, true), &options, &small).unwrap().cache_bytes
        };
        assert_eq!((on_cpu(half), on_cpu(CacheOptions { half: false, ..half })), (plain, 2 * plain));
        let limited = CacheOptions { most_tokens: Some(1000), ..CacheOptions::AS_COMPUTED };
        assert!(decide(limited).unwrap().cache_bytes < plain / 50);
        let wrong = CacheOptions { most_tokens: Some(4), keep: 4, ..CacheOptions::AS_COMPUTED };
        assert_eq!(decide(wrong).unwrap_err().code(), Code::InvalidRequest);
    }

    #[test]
    fn this_machine_has_memory() {
        let machine = Machine::detect(false).unwrap();
        assert!(machine.free_memory > 0 && machine.free_memory <= machine.total_memory);
    }
}
