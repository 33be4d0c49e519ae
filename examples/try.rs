use mlx_cache::engine::{session::Engine, request::*, outcome::Event};
use std::ops::ControlFlow;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let t = std::time::Instant::now();
    let mut e = Engine::load(std::path::Path::new(&a[1]), &LoadOptions::default(), &mut |_, _| {}).unwrap();
    eprintln!("load {:?} policy {:?}", t.elapsed(), e.policy());
    let max: usize = a[3].parse().unwrap();
    for _ in 0..3 {
        let prompt = if a[2] == "long" { Prompt::Raw("the quick brown fox jumps over a lazy dog ".repeat(32)) } else { Prompt::Chat(vec![Message::new("user", &*a[2])]) };
        let g = e.generate(&GenerateRequest { prompt, max_tokens: Some(max), sampling: SamplingOptions::default(), stop: vec![] }, &mut |ev| { if let Event::Text(t) = ev { print!("{t}") }; ControlFlow::Continue(()) }).unwrap();
        println!("\n{:?} {:?} {:?} peak {}", g.finish_reason, g.usage, g.timings, g.peak_bytes);
        e.clear().unwrap();
    }
}
