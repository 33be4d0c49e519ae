mod golden;
mod smollm2;
mod sandbox {
    pub fn smollm2() -> std::path::PathBuf {
        std::path::Path::new(&std::env::var("MLX_CACHE_TEST_MODELS").expect("MLX_CACHE_TEST_MODELS"))
            .join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    }
}
