//! Writes the `bindings.rs` that the mlx-sys crate includes, as its own build script does on macOS.
//!
//! Usage: `mlx-cache-bindgen MLX_C_SOURCE OUTPUT [CLANG_ARG…]`

use std::path::PathBuf;
use std::{env, fs, process};

/// mlx-c declares its half-precision accessors on aarch64 only; mlx-rs uses them everywhere.
/// `native/half_accessors.cpp` defines them.
const HALF_ACCESSORS: &str = r#"
#[repr(transparent)]
#[derive(Debug, Default, Copy, Clone)]
pub struct __BindgenFloat16(pub u16);
pub type float16_t = __BindgenFloat16;
pub type bfloat16_t = u16;
unsafe extern "C" {
    pub fn mlx_array_item_float16(res: *mut float16_t, arr: mlx_array) -> ::std::os::raw::c_int;
    pub fn mlx_array_item_bfloat16(res: *mut bfloat16_t, arr: mlx_array) -> ::std::os::raw::c_int;
    pub fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t;
    pub fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t;
}
"#;

/// mlx-rs hands the mode of `mlx_pad` over as `*const i8`, which C's char is not on Linux on aarch64.
const PAD_MODE: [&str; 2] = [
    "pad_value: mlx_array,\n        mode: *const ::std::os::raw::c_char,",
    "pad_value: mlx_array,\n        mode: *const i8,",
];

fn main() {
    if let Err(error) = generate() {
        eprintln!("bindgen: {error}");
        process::exit(1);
    }
}

fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let root = PathBuf::from(args.next().ok_or("no mlx-c source folder given")?);
    let output = PathBuf::from(args.next().ok_or("no output file given")?);

    let mut headers = fs::read_dir(root.join("mlx/c"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    headers.retain(|path| path.extension().is_some_and(|extension| extension == "h"));
    headers.sort();

    let mut builder = bindgen::Builder::default()
        .rust_target("1.82.0".parse().map_err(|_| "rust target")?)
        .clang_arg(format!("-I{}", root.display()))
        .clang_args(args)
        .blocklist_function("malloc")
        .blocklist_function("realloc");
    if cfg!(not(target_arch = "aarch64")) {
        builder = builder.raw_line(HALF_ACCESSORS);
    }
    for header in headers {
        builder = builder.header(header.to_string_lossy());
    }
    let bindings = builder.generate()?.to_string();
    let [declared, wanted] = PAD_MODE;
    if !bindings.contains(declared) {
        return Err("mlx_pad is declared otherwise than mlx-rs was adapted to".into());
    }
    fs::write(output, bindings.replace(declared, wanted))?;
    Ok(())
}
