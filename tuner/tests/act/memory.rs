//! What is remembered of the person's text, however Plimsoll's own configuration changes under it.

use plimsoll_trace::{Decision, DecisionOutcome, Mode};
use plimsoll_tuner::act::Ended;
use plimsoll_tuner::{ConfigFile, Engine, Format};

use super::world::{Daemon, PERSON, RULES, World, ladder};

impl Daemon {
    /// As after SIGHUP.
    fn reconfigure(self, rules: &str) -> Self {
        self.edit(|engine, spec| engine.reconfigured(Engine::new(spec, ladder(rules), None)))
    }

    fn edit(mut self, with: impl FnOnce(Engine, plimsoll_tuner::EngineSpec) -> Engine) -> Self {
        let spec = self.paths.spec();
        let placeholder = Engine::new(spec.clone(), ladder(""), None);
        let engine = std::mem::replace(&mut self.engine, placeholder);
        self.engine = with(engine, spec);
        self
    }
}

fn both_taken(world: &World) -> Daemon {
    let mut daemon = Daemon::start(&world.paths, world.book());
    for _ in 0..2 {
        assert_eq!(daemon.act(0.95).expect("a rung").ended, Ended::Kept);
    }
    daemon
}

/// The two rules of [`RULES`], one by one.
fn rule(name: &str) -> String {
    let rules = RULES
        .split("[[rule]]")
        .find(|rule| rule.contains(&format!("{name:?}")));
    format!("[[rule]]{}", rules.unwrap())
}

#[test]
fn a_rule_that_is_gone_leaves_the_file_with_the_next_change() {
    for gone in ["quantize", "shrink"] {
        for restart in [false, true] {
            let world = World::new();
            let daemon = both_taken(&world);
            let left = rule(if gone == "quantize" { "shrink" } else { "quantize" });
            let mut daemon = if restart {
                drop(daemon);
                Daemon::start_with(&world.paths, world.book(), world.spec(), &left)
            } else {
                daemon.reconfigure(&left)
            };
            // A person's edit on the way is kept, and ours does not become theirs by it.
            world.save(&(world.text() + "theirs: 1\n"));
            let records = daemon.engine.file_changed(daemon.now);
            daemon.store(records);
            daemon.release_all();
            assert_eq!(world.text(), PERSON.to_owned() + "theirs: 1\n", "{gone}");

            // Put back into the configuration, it is not taken any more.
            let mut daemon = daemon.reconfigure(RULES);
            daemon.release_all();
            assert_eq!(daemon.act(0.85).expect("a rung").ended, Ended::Kept);
            assert!(world.text().contains("\"int8\""), "{}", world.text());
            assert!(world.text().contains("batch: 64"), "{}", world.text());
        }
    }
}

#[test]
fn without_any_rule_the_persons_text_stays_known() {
    let world = World::new();
    let daemon = both_taken(&world);
    drop(daemon);
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), "");
    world.save(&(world.text() + "theirs: 1\n"));
    let records = daemon.engine.file_changed(daemon.now);
    daemon.store(records);
    let mut daemon = daemon.reconfigure(RULES);
    daemon.release_all();
    assert_eq!(world.text(), PERSON.to_owned() + "theirs: 1\n");
}

#[test]
fn a_rule_that_sets_something_else_now() {
    let world = World::new();
    let daemon = both_taken(&world);
    let other = RULES
        .replace("quantization = \"int8\"", "note = \"short\"")
        .replace("0.5", "0.25");
    let mut daemon = daemon.reconfigure(&other);
    world.save(&(world.text() + "theirs: 1\n"));
    let records = daemon.engine.file_changed(daemon.now);
    daemon.store(records);
    assert_eq!(daemon.act(0.05).expect("the higher rung goes").ended, Ended::Kept);
    let text = world.text();
    assert!(
        text.contains("'none'") && text.contains("note: \"short\""),
        "by the rules as they are: {text}"
    );
    daemon.release_all();
    assert_eq!(world.text(), PERSON.to_owned() + "theirs: 1\n");
}

#[test]
fn rules_in_another_order() {
    let world = World::new();
    let daemon = both_taken(&world);
    let mut daemon = daemon.reconfigure(&(rule("shrink") + &rule("quantize")));
    daemon.release_all();
    assert_eq!(world.text(), PERSON);
}

#[test]
fn rungs_taken_together_are_let_go_one_by_one() {
    let world = World::new();
    // The first alone is known not to suffice.
    let rules = RULES.replace("2GiB", "1MiB");
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), &rules);
    daemon.act(0.95).expect("both");
    let text = world.text();
    assert!(
        text.contains("int8") && text.contains("batch: 32") && text.contains("swap: true"),
        "{text}"
    );
    drop(daemon);
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), &rules);
    daemon.now = daemon.now.plus(std::time::Duration::from_secs(90_000));
    let released = daemon.act(0.05).expect("the higher");
    assert_eq!((released.rule.as_str(), released.ended), ("shrink", Ended::Kept));
    assert_eq!(world.text(), PERSON.replace("'none'", "\"int8\""));
    daemon.release_all();
    assert_eq!(world.text(), PERSON);
}

#[test]
fn another_file_is_not_mixed_up_with_the_former() {
    let world = World::new();
    let daemon = both_taken(&world);
    let taken = world.text();
    let other = world.folder.join("other.yaml");
    std::fs::write(&other, "quantization: int8\nbatch: 32\n").unwrap();
    let mut spec = world.spec();
    spec.config = Some(ConfigFile {
        path: other.clone(),
        format: Format::Yaml,
    });
    let mut daemon = daemon.edit(|engine, _| engine.reconfigured(Engine::new(spec, ladder(RULES), None)));
    let records = daemon.engine.file_changed(daemon.now);
    assert!(!records.is_empty(), "it is said what stays in the former file");
    daemon.store(records);
    daemon.release_all();
    assert_eq!(
        std::fs::read_to_string(&other).unwrap(),
        "quantization: int8\nbatch: 32\n",
        "that is the person's own"
    );
    assert_eq!(world.text(), taken);
}

#[test]
fn another_name_for_the_engine_inherits_what_is_known_of_its_file() {
    let world = World::new();
    let daemon = both_taken(&world);
    let memo = daemon.engine.remembered();
    drop(daemon);
    let renamed = plimsoll_tuner::EngineSpec {
        name: "chat".to_owned(),
        ..world.spec()
    };
    assert!(Engine::new(renamed.clone(), ladder(RULES), None).inherits(&memo));
    let elsewhere = plimsoll_tuner::EngineSpec {
        config: None,
        ..renamed
    };
    assert!(!Engine::new(elsewhere, ladder(RULES), None).inherits(&memo));
}

fn proposed(world: &World) -> Vec<Decision> {
    let rows = world.book().rows();
    let open = rows
        .decisions
        .into_values()
        .filter(|it| it.outcome == DecisionOutcome::Proposed);
    open.collect()
}

/// One rule proposes, and a person edits the file.
fn edited_while_proposed(text: &str) -> (World, Daemon) {
    let rule = RULES.rfind("[[rule]]").expect("the second");
    let advise = RULES[rule..].replace("\"act\"", "\"advise\"");
    let world = World::new();
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), &advise);
    daemon.tick(0.95);
    assert_eq!(proposed(&world).len(), 1);
    world.save(text);
    let records = daemon.engine.file_changed(daemon.now);
    daemon.store(records);
    (world, daemon)
}

/// Whether any rule has to be given its keys back before it says anything again.
fn is_suspended(daemon: &Daemon) -> bool {
    let memo: serde_json::Value = serde_json::from_str(&daemon.engine.remembered()).unwrap();
    let rules = memo["ladder"]["rules"].as_object().unwrap();
    rules
        .values()
        .any(|rule| rule["suspended"].as_array().is_some_and(|keys| !keys.is_empty()))
}

#[test]
fn who_writes_what_was_advised_has_followed_the_rule() {
    let all = PERSON.replace("batch: 64", "batch: 32 # as advised") + "swap: true\n";
    let (world, mut daemon) = edited_while_proposed(&all);
    assert_eq!(proposed(&world), []);
    assert!(!is_suspended(&daemon));
    let said = world.book().rows().last().explanation.clone();
    assert!(said.contains("A person wrote what it advised"), "{said}");
    // It does not repeat itself, and takes nothing of theirs back.
    daemon.tick(0.95);
    daemon.tick(0.05);
    daemon.tick(0.05);
    assert_eq!(proposed(&world), []);
    assert_eq!(world.text(), all);
}

#[test]
fn a_proposal_on_keys_that_a_person_changed_is_closed() {
    let (world, mut daemon) = edited_while_proposed(&PERSON.replace("batch: 64", "batch: 48"));
    assert_eq!(proposed(&world), []);
    assert!(is_suspended(&daemon));
    let said = world.book().rows().last().explanation.clone();
    assert!(said.contains("Withdrawn: A person changed its keys"), "{said}");
    daemon.tick(0.95);
    assert_eq!(proposed(&world), []);
}

#[test]
fn proposals_outlive_the_daemon_and_not_their_rule() {
    let advise = RULES.replace("\"act\"", "\"advise\"");
    let world = World::new();
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), &advise);
    daemon.tick(0.85);
    assert_eq!(proposed(&world).len(), 1);
    assert_eq!(proposed(&world)[0].mode, Mode::Advise);
    drop(daemon);

    // The next daemon withdraws it when the pressure is over.
    let mut daemon = Daemon::start_with(&world.paths, world.book(), world.spec(), &advise);
    assert_eq!(daemon.engine.take_up(proposed(&world)), []);
    daemon.tick(0.1);
    assert_eq!(proposed(&world), []);

    // And when its rule is gone.
    daemon.tick(0.85);
    assert_eq!(proposed(&world).len(), 1);
    let mut daemon = daemon.reconfigure("");
    daemon.tick(0.85);
    assert_eq!(proposed(&world), []);
    let said = world.book().rows().last().explanation.clone();
    assert!(
        said.contains("Withdrawn: The rule is no longer configured."),
        "{said}"
    );

    // One that nobody remembers does not stay open.
    let mut lost = world.book().rows().last().clone();
    lost.outcome = DecisionOutcome::Proposed;
    let closed = daemon.engine.take_up(vec![lost]);
    daemon.store(closed);
    assert_eq!(proposed(&world), []);
}
