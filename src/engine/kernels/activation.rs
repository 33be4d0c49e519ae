//! Activations over vectors.

use super::lanes::{Lanes, exp, silu};
use crate::engine::activation::Activation;

#[inline(always)]
pub(super) unsafe fn apply<V: Lanes>(activation: Activation, x: V) -> V {
    // SAFETY: the caller's.
    unsafe {
        match activation {
            Activation::Silu => silu(x),
            Activation::Gelu => gelu(x),
            Activation::GeluTanh => gelu_tanh(x),
            Activation::Relu => x.max(V::zero()),
        }
    }
}

/// x Φ(x) within 1e-7 |x|: with q = erfc(|x| / √2), that is max(x, 0) - |x| q / 2. erfc by formula 7.1.26 of
/// Abramowitz and Stegun (1964), whose error is at most 1.5e-7.
#[inline(always)]
unsafe fn gelu<V: Lanes>(x: V) -> V {
    /// Their p / √2.
    const P: f32 = 0.231_641_9;
    const COEFFICIENTS: [f32; 4] = [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    // SAFETY: the caller's.
    unsafe {
        let magnitude = x.max(V::zero().sub(x));
        let t = V::splat(1.0).div(magnitude.mul_add(V::splat(P), V::splat(1.0)));
        let mut polynomial = V::splat(1.061_405_4);
        for coefficient in COEFFICIENTS {
            polynomial = polynomial.mul_add(t, V::splat(coefficient));
        }
        let tail = polynomial.mul(t).mul(exp(x.mul(x).mul(V::splat(-0.5))));
        x.max(V::zero()).sub(magnitude.mul(tail).mul(V::splat(0.5)))
    }
}

/// x / (1 + e⁻²ᵘ) with u = √(2/π) (x + 0.044715 x³), which is x (1 + tanh u) / 2.
#[inline(always)]
unsafe fn gelu_tanh<V: Lanes>(x: V) -> V {
    const SCALE: f32 = -1.595_769_1;
    // SAFETY: the caller's.
    unsafe {
        let cubic = x.mul(x).mul_add(V::splat(0.044_715), V::splat(1.0)).mul(x);
        x.div(exp(cubic.mul(V::splat(SCALE))).add(V::splat(1.0)))
    }
}
