//! What stands between two linear maps.

use std::f32::consts::SQRT_2;

use mlx_rs::{Array, ops};

use crate::error::Result;

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x / (1 + e⁻ˣ)
    Silu,
    /// x Φ(x), with the normal distribution's Φ by the error function (Hendrycks, Gimpel, arXiv:1606.08415).
    Gelu,
    /// The same by its approximation with the hyperbolic tangent.
    GeluTanh,
    /// max(x, 0)
    Relu,
}

impl Activation {
    /// By its name in configurations (`hidden_act` and the like), as `transformers` knows it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => Self::GeluTanh,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            _ => return None,
        })
    }

    /// By MLX's plain operations: its own activations are compiled at run time on a CPU.
    pub fn apply(self, x: &Array) -> Result<Array> {
        let number = |value: f32| -> Result<Array> { Ok(Array::from_f32(value).as_dtype(x.dtype())?) };
        Ok(match self {
            Self::Silu => ops::multiply(x, ops::sigmoid(x)?)?,
            Self::Relu => ops::maximum(x, number(0.0)?)?,
            Self::Gelu => {
                let erf = ops::erf(ops::divide(x, number(SQRT_2)?)?)?;
                ops::multiply(ops::multiply(x, number(0.5)?)?, ops::add(erf, number(1.0)?)?)?
            }
            Self::GeluTanh => {
                let square = ops::multiply(x, x)?;
                let cubic = ops::add(ops::multiply(square, number(0.044_715)?)?, number(1.0)?)?;
                let inner = ops::multiply(ops::multiply(x, cubic)?, number(1.595_769_1)?)?;
                ops::multiply(x, ops::sigmoid(inner)?)?
            }
        })
    }
}
