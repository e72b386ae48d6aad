//! What a configuration may say: the documented example, the defaults, and mistakes that name their place.

use super::*;

const PATH: &str = "/etc/plimsoll/plimsoll.toml";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new(PATH)).map_err(|error| error.to_string())
}

/// The blocks of TOML in the page that documents the configuration, put together.
fn documented() -> String {
    let page = include_str!("../../../docs/configuration.md");
    let blocks = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    blocks.collect()
}

#[test]
fn the_documented_example_is_valid() {
    let config = parse(&documented()).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = config
        .engines
        .iter()
        .map(|(engine, _)| engine.spec.name.as_str())
        .collect();
    assert_eq!(names, ["chat", "deepseek"], "in order of their names");
    let (deepseek, ladder) = &config.engines[1];
    assert_eq!(
        ladder
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect::<Vec<_>>(),
        ["checkpointing", "quantize"]
    );
    assert!(
        deepseek.spec.applied.is_some()
            && deepseek
                .spec
                .health
                .as_ref()
                .is_some_and(|health| health.probe.is_some())
    );
    // Everything that is accepted but without effect is said, and nothing else.
    insta::assert_snapshot!(config.warnings.join("\n"), @r#"
    [http] listen = "127.0.0.1:9690": this version serves no HTTP yet; use `plimsoll status`
    [engine.chat] profile = "vllm" is taken as "custom": this version has no profiles of its own
    "#);
}

#[test]
fn an_empty_file_has_the_documented_defaults() {
    let config = parse("").unwrap_or_else(|error| panic!("{error}"));
    let hours = |Period(period): Period| period.as_secs() / 3600;
    let keep = &config.store.keep;
    assert_eq!(
        (hours(keep.raw), hours(keep.seconds), hours(keep.minutes)),
        (24, 14 * 24, 400 * 24)
    );
    assert_eq!(config.store.max_size, Size(4 << 30));
    assert_eq!(config.sampling.interval, Period(Duration::from_secs(1)));
    assert_eq!(config.sampling.burst, Period(Duration::from_millis(100)));
    assert_eq!(config.sampling.nvml_library, Path::new("libnvidia-ml.so.1"));
    assert!(config.engines.is_empty() && config.warnings.is_empty() && config.store.path.is_none());
}

const ENGINE: &str = "[engine.chat]\nprofile = \"custom\"\n";

fn rule(when: &str) -> String {
    format!("{ENGINE}[[rule]]\nname = \"r\"\nengine = \"chat\"\nset = {{ a = 1 }}\nwhen = {when}\n")
}

/// An engine with an `allow`, and a rule that sets something.
fn allowing(allow: &str, set: &str) -> String {
    let section = format!("{ENGINE}allow = {allow}\n");
    rule("{ signal = \"vram.used_ratio\", enter = 0.8 }")
        .replace(ENGINE, &section)
        .replace("a = 1", set)
}

/// Line, key and what to write instead, for mistakes in every kind of place.
#[test]
fn mistakes_name_their_place() {
    let cases = [
        "[store]\nkeep = { rwa = \"24h\" }".to_owned(),
        "[store]\nkeep = \"24h\"".to_owned(),
        "[store]\npath = \"plimsoll.db\"".to_owned(),
        "[store]\nmax_size = 0".to_owned(),
        "[store]\n[store]".to_owned(),
        "[sampling]\ninterval = 1".to_owned(),
        "interval = \"1s\"".to_owned(),
        "[http]\nlisten = \"localhost:9690\"".to_owned(),
        "[engines.chat]\nprofile = \"custom\"".to_owned(),
        "[engine]\nprofile = \"custom\"".to_owned(),
        "[[engine]]\nprofile = \"custom\"".to_owned(),
        "[engine.chat]".to_owned(),
        "[engine.chat]\nprofile = \"vlllm\"".to_owned(),
        format!("{ENGINE}config = [\"/etc/engine.yaml\"]"),
        format!("{ENGINE}config_format = \"YAML\""),
        format!("{ENGINE}match = {{ prot = 8000 }}"),
        format!("{ENGINE}match = {{ port = \"8000\" }}"),
        format!("{ENGINE}match = {{ args = \"(\" }}"),
        format!("{ENGINE}match = \"vllm\""),
        format!("{ENGINE}reload = {{ signl = \"HUP\" }}"),
        format!("{ENGINE}reload = {{ command = \"kill -HUP 1\" }}"),
        format!("{ENGINE}health = \"http://127.0.0.1:8000/health\""),
        format!("{ENGINE}health = {{ http = \"http://127.0.0.1:8000/health\", within = \"0\" }}"),
        format!("{ENGINE}health = {{ http = \"http://127.0.0.1:8000/health\", probe = {{ htp = \"\" }} }}"),
        format!("{ENGINE}limits = {{ restart_per_hour = 2 }}"),
        format!("{ENGINE}quality = {{ command = [] }}"),
        format!("{ENGINE}quality = {{ command = \"check\" }}"),
        format!("{ENGINE}metrics = \"127.0.0.1:8000/metrics\""),
        rule("{ signl = \"vram.used_ratio\", enter = 0.8 }"),
        rule("{ signal = \"gpu\", enter = 0.8 }"),
        rule("{ signal = \"metric:queue{name=a}\", enter = 4, exit = 1 }"),
        rule("{ signal = \"vram.used_ratio\", enter = true }"),
        rule("{ signal = \"vram.used_ratio\", enter = 0.8, stat = \"median\" }"),
        rule("{ all = [ { signl = \"vram.used_ratio\", enter = 0.8 } ] }"),
        rule(
            "{ all = [\n  { signal = \"vram.used_ratio\", enter = 0.8 },\n  { signal = \"vram.free_bytes\", enter = \"80%\" } ] }",
        ),
        rule("\"vram.used_ratio > 80%\""),
        rule("{ signal = \"run.leaked_bytes\", enter = \"2GiB\", exit = 0 }")
            .replace("[[rule]]", "reload = { signal = \"HUP\" }\n[[rule]]")
            .replace("set = { a = 1 }", "restart = true"),
        rule("{ signal = \"vram.used_ratio\", enter = 0.8 }").replace("name = \"r\"\n", ""),
        rule("{ signal = \"vram.used_ratio\", enter = 0.8 }").replace("[[rule]]", "[rule]"),
        rule("{ signal = \"vram.used_ratio\", enter = 0.8 }") + "mode = \"Act\"",
        rule("{ signal = \"vram.used_ratio\", enter = 0.8 }").replace("a = 1", "\"b.c\" = { scale = 0 }"),
        rule("{ signal = \"vram.used_ratio\", enter = 0.8 }")
            + rule("{ signal = \"vram.used_ratio\", enter = 0.9 }").trim_start_matches(ENGINE),
        allowing("{ b = { min = 1, max = 8 } }", "a = 1"),
        allowing("{ max-num-seqs = { min = 16, max = 512 } }", "max-num-seq = 64"),
        allowing("{ max-num-seqs = { min = 16, max = 512 } }", "max-num-seqs = 8"),
        allowing("{ max-num-seqs = { mim = 16 } }", "max-num-seqs = 64"),
        rule("{ signal = \"vram.used_ratio\", enter = 0.8 }") + "priority = \"high\"",
        rule("{ signal = \"vram.used_ratio\", enter = 0.8 }")
            + "priority = 5\n\n"
            + &rule("{ signal = \"vram.used_ratio\", enter = 0.9 }")
                .trim_start_matches(ENGINE)
                .replace("\"r\"", "\"s\"")
                .replace("a = 1", "a = 2")
            + "priority = 5",
    ];
    let said: Vec<String> = cases
        .iter()
        .map(|text| {
            let error = parse(text).err().unwrap_or_else(|| panic!("valid:\n{text}"));
            format!(
                "{}\n=> {}\n",
                text.trim_start_matches(ENGINE).trim_end(),
                error.trim_start_matches("/etc/plimsoll/")
            )
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

/// An engine that rules may act on, and one that does.
const ACTING: &str = r#"[engine.chat]
profile = "custom"
match = { port = 8000 }
config = "/etc/engine.yaml"
reload = { signal = "HUP" }
health = { http = "http://127.0.0.1:8000/health" }

[[rule]]
name = "r"
engine = "chat"
mode = "act"
set = { a = 1 }
when = { signal = "vram.used_ratio", enter = 0.8 }
"#;

#[test]
fn acting_has_preconditions() {
    let config = parse(ACTING).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    for (without, instead, says) in [
        ("config = \"/etc/engine.yaml\"\n", "", "no `config`"),
        ("reload = { signal = \"HUP\" }\n", "", "no way to `reload`"),
        ("{ signal = \"HUP\" }", "\"none\"", "no way to `reload`"),
        (
            "health = { http = \"http://127.0.0.1:8000/health\" }\n",
            "",
            "no `health`",
        ),
        ("match = { port = 8000 }\n", "", "no `match`"),
    ] {
        let text = ACTING.replacen(without, instead, 1);
        assert_ne!(text, ACTING, "{without}");
        let error = parse(&text).err().unwrap_or_else(|| panic!("valid:\n{text}"));
        assert!(error.contains("rule `r` of [engine.chat] may not act"), "{error}");
        assert!(error.contains(says), "{error}");
        // Whoever only wants to hear of it may.
        let advise = text.replace("\"act\"", "\"advise\"");
        assert!(parse(&advise).is_ok(), "{advise}");
    }
    // What a change may do to latency and to the answers is checked by whoever acts.
    let text = ACTING.replacen(
        "match",
        "limits = { latency_max = \"+20%\" }\nquality = { command = [\"true\"] }\nmatch",
        1,
    );
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let guards = &config.engines[0].0.spec.guards;
    assert_eq!(guards.latency_max, 0.2);
    assert_eq!(
        guards.quality.as_ref().map(|quality| quality.timeout.as_secs()),
        Some(120)
    );
    // A process is needed for a signal only.
    let http = ACTING
        .replace(
            "{ signal = \"HUP\" }",
            "{ http = \"POST http://127.0.0.1:8000/reload\" }",
        )
        .replace("match = { port = 8000 }\n", "");
    let config = parse(&http).unwrap_or_else(|error| panic!("{error}"));
    insta::assert_snapshot!(config.warnings.join("\n"), @"rule 'r' of [engine.chat]: the engine has no `match`, so nobody knows which devices it uses, and vram.used_ratio stays unknown");
    let host = http.replace(
        "vram.used_ratio\", enter = 0.8",
        "host.swap_used_bytes\", enter = 2, exit = 1",
    );
    let config = parse(&host).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn two_engines_have_two_files() {
    let engine = |name, path: &Path| format!("[engine.{name}]\nprofile = \"custom\"\nconfig = {path:?}\n");
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
    std::fs::write(&file, "").unwrap();
    let text = engine("a", &file) + &engine("b", &link);
    assert!(parse(&text).is_ok());
    let error = parse(&(engine("a", &file) + &engine("b", &file))).unwrap_err();
    assert!(error.contains("plimsoll.toml:6: engine.b.config"), "{error}");
    assert!(error.contains("is the file of engine.a already"), "{error}");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(
        parse(&text).unwrap_err().contains("engine.a already"),
        "by another name"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,60}|(\\[?\\[(store|engine.a|rule)\\]\\]?\n[a-z]{1,8} = (1|\"x\"|\\{ [a-z]{1,5} = 2 \\}|\\[\\])\n){0,3}") {
        drop(parse(&text));
    }
}

#[test]
fn every_reason_of_a_loss_is_explained() {
    let page = include_str!("../../../docs/configuration.md");
    for reason in plimsoll_trace::wire::LossReason::ALL {
        assert!(page.contains(&format!("`{reason}`")), "{reason}");
    }
}
