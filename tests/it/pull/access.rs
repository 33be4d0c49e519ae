//! Who may have what: tokens, gates, offline.

use super::*;
use crate::hub::{ALWAYS, Fault, Host, On};

#[test]
fn what_is_not_there_is_told_apart() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny").commit_as("v1")));
    for (args, code, told) in [
        (&["org/none"][..], "MODEL_NOT_FOUND", "org/none"),
        (&["org/none", "--token", TOKEN], "MODEL_NOT_FOUND", "org/none"),
        (&["org/tiny@v2"], "MODEL_NOT_FOUND", "v2"),
        (&["org/tiny", "--revision", "v2"], "MODEL_NOT_FOUND", "v2"),
        (&["org/tiny", "--include", "*.gguf"], "FILE_NOT_FOUND", "org/tiny"),
        (&["org/tiny:Q4_K_M"], "FILE_NOT_FOUND", "Q4_K_M"),
    ] {
        let error = refused(&sandbox, &hub, args, &[code]);
        assert!(error["message"].as_str().expect("a text").contains(told), "{args:?}: {error}");
        assert_eq!(error["retryable"], false);
    }
    // Whoever is unknown may just not be allowed to see it.
    let error = refused(&sandbox, &hub, &["org/none"], &["MODEL_NOT_FOUND"]);
    assert!(error["hint"].as_str().expect("a hint").to_lowercase().contains("token"), "{error}");
    assert_eq!(hub.traffic(), 0);
}

#[test]
fn refusals_of_single_files_end_the_pull() {
    for_each(
        vec![(401, "ACCESS_DENIED"), (403, "ACCESS_DENIED"), (404, "FILE_NOT_FOUND"), (410, ""), (400, "")],
        |(status, code)| {
            for on in [On::Address("model.safetensors".to_owned()), On::Payload("tokenizer.json".to_owned())]
            {
                let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
                hub.fault(on.clone(), ALWAYS, Fault::status(*status));
                let codes: &[&str] = &["HUB_UNAVAILABLE", "NETWORK_ERROR", "FILE_NOT_FOUND", "ACCESS_DENIED"];
                let codes = if code.is_empty() { codes } else { &[*code] };
                let error = refused(&sandbox, &hub, &["org/tiny"], codes);
                let (On::Address(file) | On::Payload(file)) = &on else { unreachable!() };
                assert!(error["message"].as_str().expect("a text").contains(file), "{error}");
            }
        },
    );
}

#[test]
fn gated_models_name_the_page_where_to_ask() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/gated").gated(TOKEN)));
    for args in [&["org/gated"][..], &["org/gated", "--token", "hf_another"]] {
        let error = refused(&sandbox, &hub, args, &["ACCESS_DENIED"]);
        let text = error.to_string();
        assert!(text.contains(&format!("{}/org/gated", hub.endpoint())), "{error}");
    }
    let pulled = pull_one(&sandbox, &hub, &["org/gated", "--token", TOKEN]);
    assert_all(&folder(&pulled), &Repository::tiny("org/gated"));
}

#[test]
fn private_models_need_the_token() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/private").private(TOKEN)));
    for args in [&["org/private"][..], &["org/private", "--token", "hf_another"]] {
        let error = refused(&sandbox, &hub, args, &["MODEL_NOT_FOUND", "ACCESS_DENIED"]);
        assert!(error["hint"].as_str().expect("a hint").to_lowercase().contains("token"), "{error}");
    }
    pull(&sandbox, &hub, &["org/private", "--token", TOKEN]);
}

#[test]
fn the_token_comes_from_the_flag_the_variable_or_the_file() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/private").private(TOKEN)));
    let fresh = |command: &mut Command| {
        done(&sandbox, command);
        let (status, envelope) = sandbox.json(&["rm", "org/private", "--yes"]);
        assert_eq!(status, 0, "{envelope}");
    };
    let command = || command(&sandbox, &hub, &["org/private"]);
    fresh(command().env("HF_TOKEN", TOKEN));
    // The flag comes first.
    fresh(command().env("HF_TOKEN", "hf_another").args(["--token", TOKEN]));
    let elsewhere = sandbox.home().join("elsewhere");
    fs::write(&elsewhere, format!("{TOKEN}\n")).expect("written");
    fresh(command().env("HF_TOKEN_PATH", &elsewhere));
    let place = sandbox.home().join(".cache/huggingface");
    fs::create_dir_all(&place).expect("a folder");
    fs::write(place.join("token"), TOKEN).expect("written");
    fresh(&mut command());
}

#[test]
fn the_token_goes_to_the_hub_alone_and_is_never_told() {
    let repository = Repository::tiny("org/private").file("x.json", "{}").private(TOKEN);
    let (sandbox, hub) = (Sandbox::new(), Hub::with(repository));
    hub.page(2);
    hub.fault(On::Payload("x.json".to_owned()), 1, Fault::status(500));
    // Everything that may be said about it.
    for flags in [&["--verbose"][..], &["--json"], &["--verbose", "--dry-run"], &["--progress-json"]] {
        let outcome =
            run(online(&sandbox, &hub, &["pull", "org/private"]).args(flags).env("HF_TOKEN", TOKEN));
        assert_eq!(outcome.status, 0, "{outcome:?}");
        assert!(!outcome.stdout.contains(TOKEN) && !outcome.stderr.contains(TOKEN), "{outcome:?}");
    }
    let seen = hub.seen();
    let to = |host| seen.iter().filter(move |seen| seen.host == host);
    assert!(to(Host::Hub).all(|seen| seen.header("authorization") == Some(&format!("Bearer {TOKEN}"))));
    assert!(to(Host::Storage).count() > 0);
    assert!(to(Host::Storage).all(|seen| seen.header("authorization").is_none()));
    assert!(seen.iter().all(|seen| !seen.target.contains(TOKEN)));

    // Errors, and what is kept.
    for (on, fault) in [
        (On::Info, Fault::status(403)),
        (On::Tree, Fault::body(format!("[{{\"path\": \"{TOKEN}\"}}]"))),
        (On::Everything, Fault::Reset),
    ] {
        let sandbox = Sandbox::new();
        hub.heal();
        hub.fault(on, ALWAYS, fault);
        let outcome = run(
            online(&sandbox, &hub, &["pull", "org/private", "--json", "--token", TOKEN]).arg("--verbose")
        );
        assert_ne!(outcome.status, 0);
        let told = outcome.stdout.replace(&format!("\\\"path\\\": \\\"{TOKEN}"), "") + &outcome.stderr;
        assert!(!told.contains(&format!("Bearer {TOKEN}")), "{told}");
    }
    for (name, path) in files_of(&sandbox.store()) {
        let content = fs::read(&path).unwrap_or_default();
        assert!(!content.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "{name}");
    }
}

#[test]
fn no_redirect_and_no_page_takes_the_token_elsewhere() {
    let other = Hub::with(Repository::tiny("org/private"));
    for_each(
        vec![
            (On::Info, format!("{}/api/models/org/private", other.endpoint())),
            (On::Tree, format!("{}/api/models/org/private/tree/main?recursive=true", other.endpoint())),
            (
                On::Address("config.json".to_owned()),
                format!("{}/org/private/resolve/main/config.json", other.endpoint()),
            ),
            (
                On::Address("model.safetensors".to_owned()),
                format!("{}/org/private/resolve/main/model.safetensors", other.endpoint()),
            ),
            (
                On::Payload("config.json".to_owned()),
                format!("{}/org/private/resolve/main/config.json", other.endpoint()),
            ),
        ],
        |(on, location)| {
            let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/private").private(TOKEN)));
            hub.fault(on.clone(), ALWAYS, Fault::redirect(location.as_str()));
            // Whether it follows is its own affair.
            let outcome = run(command(&sandbox, &hub, &["org/private"]).env("HF_TOKEN", TOKEN));
            assert!(matches!(outcome.status, 0 | 3..=6), "{outcome:?}");
            in_order(&sandbox);
        },
    );
    // The next page of a list at another host.
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/private").private(TOKEN)));
    let next =
        format!("<{}/api/models/org/private/tree/main?recursive=true>; rel=\"next\"", other.endpoint());
    let headers = vec![("Link", next)];
    hub.fault(On::Tree, ALWAYS, Fault::Answer { status: 200, headers, body: b"[]".to_vec() });
    let outcome = run(command(&sandbox, &hub, &["org/private"]).env("HF_TOKEN", TOKEN));
    assert!(matches!(outcome.status, 0 | 3..=8), "{outcome:?}");
    in_order(&sandbox);

    let leaked: Vec<_> =
        other.seen().into_iter().filter(|seen| seen.header("authorization").is_some()).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[test]
fn a_token_that_is_none_is_refused_before_it_is_sent() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny")));
    for bad in ["hf_a\nX-Evil: 1", "hf_ä", "hf a\u{7f}"] {
        let error = refused(&sandbox, &hub, &["org/tiny", "--token", bad], &["INVALID_REQUEST"]);
        assert!(!error.to_string().contains("Evil"), "{error}");
    }
    assert!(hub.seen().is_empty());
}

#[test]
fn offline_what_is_here_is_used_and_nothing_is_asked() {
    let (sandbox, hub) = (Sandbox::new(), Hub::with(Repository::tiny("org/tiny").commit_as("v1")));
    for variable in ["MLX_CACHE_OFFLINE", "HF_HUB_OFFLINE"] {
        let mut command = command(&sandbox, &hub, &["org/tiny"]);
        let error = fails(&sandbox, command.env(variable, "1"), &["OFFLINE"]);
        assert!(error["message"].as_str().expect("a text").contains("org/tiny"), "{error}");
    }
    assert!(hub.seen().is_empty());
    let pulled = pull_one(&sandbox, &hub, &["org/tiny"]);
    hub.forget();
    for variable in ["MLX_CACHE_OFFLINE", "HF_HUB_OFFLINE"] {
        let mut command = command(&sandbox, &hub, &["org/tiny"]);
        let again = done(&sandbox, command.env(variable, "1"));
        assert_eq!(again[0]["snapshot_path"], pulled["snapshot_path"]);
        assert_eq!(number(&again[0], "bytes_downloaded"), 0);
    }
    // Another revision is not here.
    let mut command = command(&sandbox, &hub, &["org/tiny@v1"]);
    fails(&sandbox, command.env("MLX_CACHE_OFFLINE", "1"), &["OFFLINE"]);
    assert!(hub.seen().is_empty());
}
