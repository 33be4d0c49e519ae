//! Which instructions the kernels use: chosen when the program runs, for every operation anew so that
//! tests can force each.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

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
    Avx2 { subnormals: bool },
    /// AVX-512 F, BW, DQ, VL, and what `Avx2` has.
    #[cfg(target_arch = "x86_64")]
    Avx512 { subnormals: bool },
    /// Advanced SIMD, which every 64-bit ARM processor under Linux has.
    #[cfg(target_arch = "aarch64")]
    Neon { subnormals: bool },
}

/// How often the quickest of what is compared is looked for.
const TRIES: usize = 8;

/// Adds up a thousand products, each the same.
#[derive(Clone, Copy)]
struct Trial {
    weight: f32,
    x: f32,
    /// What sums begin with, and multiples of it.
    start: f32,
}

impl Task for Trial {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            let (weight, x) = (V::splat(self.weight), V::splat(self.x));
            let mut sums = [0.0, 1.0, 2.0, 3.0].map(|times| V::splat(times * self.start));
            for _ in 0..256 {
                for sum in &mut sums {
                    *sum = weight.mul_add(x, *sum);
                }
            }
            sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
        }
    }
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
        Self::Avx2 { subnormals: false },
        #[cfg(target_arch = "x86_64")]
        Self::Avx2 { subnormals: true },
        #[cfg(target_arch = "x86_64")]
        Self::Avx512 { subnormals: false },
        #[cfg(target_arch = "x86_64")]
        Self::Avx512 { subnormals: true },
        #[cfg(target_arch = "aarch64")]
        Self::Neon { subnormals: false },
        #[cfg(target_arch = "aarch64")]
        Self::Neon { subnormals: true },
    ];

    /// What this machine can do, best last if subnormal floats are quick.
    pub(super) fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.iter().copied().filter(|isa| isa.detected())
    }

    fn detected(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 { .. } => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 { subnormals } => {
                Self::Avx2 { subnormals }.detected()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            // Part of the target's baseline: everything is compiled for it.
            #[cfg(target_arch = "aarch64")]
            Self::Neon { .. } => cfg!(target_feature = "neon"),
        }
    }

    /// What to build the next operation for.
    pub(super) fn current() -> Self {
        #[cfg(test)]
        if let Some(forced) = forced::get() {
            return forced;
        }
        *BEST.get_or_init(|| Self::available().rfind(|isa| isa.is_quick()).unwrap_or(Self::Portable))
    }

    /// Whether products take quants for subnormal floats, which need no conversion then.
    pub(super) fn subnormals(self) -> bool {
        match self {
            Self::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 { subnormals } | Self::Avx512 { subnormals } => subnormals,
            #[cfg(target_arch = "aarch64")]
            Self::Neon { subnormals } => subnormals,
        }
    }

    /// Whether the processor multiplies subnormal floats, if products would have it do so, right and as quickly as
    /// others. Some interrupt themselves, which takes them a hundred cycles or more; some do not, which is told
    /// by trying it, in some ten microseconds. Threads inherit the settings by which subnormal floats would be zeros.
    fn is_quick(self) -> bool {
        if !self.subnormals() {
            return true;
        }
        let time = |weight: f32, x: f32, start: f32| {
            let trial = Trial { weight: black_box(weight), x: black_box(x), start: black_box(start) };
            let mut best = Duration::MAX;
            let mut sum = 0.0;
            for _ in 0..TRIES {
                let start = Instant::now();
                // SAFETY: the level was detected.
                sum = black_box(unsafe { self.run(black_box(trial)) });
                best = best.min(start.elapsed());
            }
            (best, sum)
        };
        let (normal, expected) = time(3.0, 1.0, 1.0);
        // 3 · 2⁻¹⁴⁹ times 2¹⁰⁰ is 3 · 2⁻⁴⁹.
        let (subnormal, sum) = time(f32::from_bits(3), 100_f32.exp2(), (-49_f32).exp2());
        (sum * 49_f32.exp2()).to_bits() == expected.to_bits() && subnormal < normal * 2
    }

    /// # Safety
    /// The level is one of [`Isa::available`]; pointers that the task holds are valid.
    pub(super) unsafe fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: passed on to the caller.
        unsafe {
            match self {
                Self::Portable => task.portable(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 { .. } => task.with_avx2(),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 { .. } => task.with_avx512(),
                #[cfg(target_arch = "aarch64")]
                Self::Neon { .. } => task.with_neon(),
            }
        }
    }
}

/// What tasks are compiled into. Methods are compiled where their type is, all of these kernels at once, functions would
/// be where they are defined, one after the other.
trait Compiled: Task + Sized {
    #[inline(never)]
    unsafe fn portable(self) -> Self::Output {
        // SAFETY: passed on to the caller.
        unsafe { self.run::<Portable>() }
    }

    #[inline(never)]
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn with_avx2(self) -> Self::Output {
        // SAFETY: passed on to the caller.
        unsafe { self.run::<Avx2>() }
    }

    #[inline(never)]
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn with_avx512(self) -> Self::Output {
        // SAFETY: passed on to the caller.
        unsafe { self.run::<Avx512>() }
    }

    #[inline(never)]
    #[cfg(target_arch = "aarch64")]
    unsafe fn with_neon(self) -> Self::Output {
        // SAFETY: passed on to the caller.
        unsafe { self.run::<Neon>() }
    }
}

impl<T: Task> Compiled for T {}

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

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use std::arch::asm;

    use super::Isa;

    /// Of the control register of the vector unit.
    #[cfg(target_arch = "x86_64")]
    const SUBNORMALS_ARE_ZEROS: u64 = 1 << 6;
    #[cfg(target_arch = "aarch64")]
    const SUBNORMALS_ARE_ZEROS: u64 = 1 << 24;

    /// The control register of the vector unit.
    fn control() -> u64 {
        let mut control = 0_u64;
        // SAFETY: it is stored where there is room for it.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!("stmxcsr [{0}]", in(reg) &raw mut control);
        }
        // SAFETY: it is stored where there is room for it.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            asm!("mrs {0}, fpcr", "str {0}, [{1}]", out(reg) _, in(reg) &raw mut control);
        }
        control
    }

    fn set_control(control: u64) {
        // SAFETY: a setting of this thread, which the test puts back.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!("ldmxcsr [{0}]", in(reg) &raw const control);
        }
        // SAFETY: a setting of this thread, which the test puts back.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            asm!("msr fpcr, {0}", in(reg) control);
        }
    }

    #[test]
    fn where_subnormal_floats_are_zeros_no_level_takes_quants_for_them() {
        let before = control();
        assert_eq!(before & SUBNORMALS_ARE_ZEROS, 0);
        set_control(before | SUBNORMALS_ARE_ZEROS);
        let quick: Vec<(Isa, bool)> = Isa::available().map(|isa| (isa, isa.is_quick())).collect();
        set_control(before);
        for (isa, is_quick) in quick {
            assert_eq!(is_quick, !isa.subnormals(), "{isa:?}");
        }
    }
}
