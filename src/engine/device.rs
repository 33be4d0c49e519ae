//! What the engine computes with, for people who want to know.

use super::ffi::library;
use super::runtime;

/// The libraries and devices of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// MLX's version.
    pub mlx: Option<String>,
    /// The Python package that the library comes from, where it comes from one.
    pub wheel: Option<&'static str>,
    /// The GPU's name, if there is a GPU that MLX can use.
    pub gpu: Option<String>,
    /// The processor's name.
    pub cpu: Option<String>,
    /// What multiplies matrices on the CPU where MLX does.
    pub blas: Blas,
}

/// Which BLAS is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blas {
    /// OpenBLAS, and what it says about its build.
    OpenBlas(String),
    /// Apple's Accelerate.
    Accelerate,
    /// Another one, by its file.
    Other(String),
    Unknown,
}

/// Asks the libraries. This starts MLX; no memory for arrays is taken.
pub fn facts() -> Facts {
    let gpu = runtime::has_gpu();
    Facts {
        mlx: library::mlx_version(),
        wheel: option_env!("MLX_CACHE_MLX_WHEEL"),
        gpu: gpu.then(|| {
            library::device_property(true, c"device_name").unwrap_or_else(|| "unnamed GPU".to_owned())
        }),
        cpu: library::device_property(false, c"device_name"),
        blas: blas(),
    }
}

fn blas() -> Blas {
    let Some(file) = library::blas_file() else { return Blas::Unknown };
    if file.contains("Accelerate") || file.contains("vecLib") {
        return Blas::Accelerate;
    }
    match library::openblas_config() {
        Some(config) if file.contains("openblas") => Blas::OpenBlas(config),
        _ => Blas::Other(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_what_the_build_pins() {
        let facts = facts();
        assert!(facts.mlx.as_deref().is_some_and(|version| version.starts_with("0.")), "{facts:?}");
        if cfg!(target_os = "linux") {
            assert!(matches!(facts.blas, Blas::OpenBlas(_)), "{facts:?}");
            assert!(facts.wheel.is_some_and(|wheel| wheel.starts_with("mlx-")));
        } else {
            assert_eq!(facts.blas, Blas::Accelerate);
        }
    }
}
