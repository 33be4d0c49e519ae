//! Which instructions the kernels use: chosen when the program runs, for every operation anew so that
//! tests can force each.

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use super::lanes::Neon;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Lanes, Portable};

static BEST: OnceLock<Isa> = OnceLock::new();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isa {
    /// What the compiler makes of plain Rust for the target's baseline.
    Portable,
    /// AVX2 with FMA and half-precision conversion.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ, VL, and what `Avx2` has.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Advanced SIMD, which every 64-bit ARM processor under Linux has.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// A piece of a kernel, written once for any kind of lanes.
///
/// Implementations mark `run` and everything below it that handles lanes `#[inline(always)]`: only code
/// inlined into the functions of this file is compiled for their instructions.
pub(super) trait Task {
    type Output;

    /// # Safety
    /// The processor has the instructions of `V`; pointers that the task holds are valid.
    unsafe fn run<V: Lanes>(self) -> Self::Output;
}

impl Isa {
    /// Every level, best last.
    const ALL: &[Self] = &[
        Self::Portable,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
    ];

    /// What this machine has, best last.
    pub(super) fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.iter().copied().filter(|isa| isa.detected())
    }

    fn detected(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.detected()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            // Part of the target's baseline: everything is compiled for it.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => cfg!(target_feature = "neon"),
        }
    }

    /// What to build the next operation for.
    pub(super) fn current() -> Self {
        #[cfg(test)]
        if let Some(forced) = forced::get() {
            return forced;
        }
        *BEST.get_or_init(|| Self::available().next_back().unwrap_or(Self::Portable))
    }

    /// # Safety
    /// The level is one of [`Isa::available`]; pointers that the task holds are valid.
    pub(super) unsafe fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: passed on to the caller.
        unsafe {
            match self {
                Self::Portable => task.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => with_avx2(task),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => with_avx512(task),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => task.run::<Neon>(),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn with_avx2<T: Task>(task: T) -> T::Output {
    // SAFETY: passed on to the caller.
    unsafe { task.run::<Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn with_avx512<T: Task>(task: T) -> T::Output {
    // SAFETY: passed on to the caller.
    unsafe { task.run::<Avx512>() }
}

#[cfg(test)]
pub(super) mod forced {
    use super::Isa;
    use std::cell::Cell;

    thread_local! {
        static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
    }

    pub(super) fn get() -> Option<Isa> {
        FORCED.get()
    }

    /// Runs `f` once for each level that this machine has; operations built in it use that level.
    pub(in crate::engine::kernels) fn each(mut f: impl FnMut(Isa)) {
        for isa in Isa::available() {
            FORCED.set(Some(isa));
            f(isa);
        }
        FORCED.set(None);
    }
}
