//! Linux only: tells the linker where the MLX library lies while developing and once installed.
//! What is linked comes from the build-script override that `native/setup.sh` writes for mlx-sys.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let Ok(wheel) = env::var("DEP_MLX_WHEEL") else {
        println!(
            "cargo:error=the MLX library is not set up: run `make build`, or native/setup.sh once before cargo"
        );
        return;
    };
    // RPATH rather than RUNPATH: it also covers what the libraries themselves need.
    println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/mlx-cache/mlx/lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{wheel}/mlx/lib");
    if let Ok(name) = env::var("DEP_MLX_WHEEL_NAME") {
        println!("cargo:rustc-env=MLX_CACHE_MLX_WHEEL={name}");
    }
}
