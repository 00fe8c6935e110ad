use std::os::unix::fs::symlink;
use std::time::Instant;

use tempfile::TempDir;

use super::super::snapshot::diff;
use super::*;
use crate::cluster::Text;
use crate::cluster::object::Event;

const NOW: Duration = Duration::ZERO;

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n")
}

fn policy(name: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{podSelector: {{}}}}\n"
    )
}

struct Fixture {
    directory: TempDir,
    files: Files,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        Self { directory, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&mut self) -> Snapshot {
        self.files.read(NOW).unwrap().snapshot
    }
}

fn keys(snapshot: &Snapshot) -> Vec<String> {
    snapshot.objects().map(|o| o.key().to_string()).collect()
}

/// The keys without the namespace that is made for them.
fn own_keys(snapshot: &Snapshot) -> Vec<String> {
    let mut keys = keys(snapshot);
    keys.retain(|key| key != "Namespace shop");
    keys
}

fn problems(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .problems
        .iter()
        .map(SourceProblem::as_str)
        .collect()
}

#[test]
fn a_directory_is_read_recursively_and_in_order() {
    let mut fixture = Fixture::new();
    fixture.write("b.yml", [pod("b1"), pod("b2")].join("---\n"));
    fixture.write("a/deep/a.yaml", pod("a"));
    fixture.write(
        "c.json",
        r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}"#,
    );
    fixture.write("kustomization.yaml", "resources: [b.yml]\n");
    fixture.write("values.yaml", "replicas: 3\n");
    fixture.write("notes.txt", "not: [yaml");
    fixture.write(".hidden.yaml", pod("hidden"));
    fixture.write(".git/x.yaml", pod("hidden"));
    let snapshot = fixture.read();
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    assert_eq!(
        keys(&snapshot),
        [
            "Pod shop/a",
            "Pod shop/b1",
            "Pod shop/b2",
            "Namespace shop",
            "Node n"
        ]
    );
    let origin = |name| {
        let key = ObjectKey::Pod(Text::from("shop"), Text::from(name));
        snapshot.origin(&key).unwrap().to_string()
    };
    assert!(origin("b2").ends_with("/b.yml:5"), "{}", origin("b2"));
}

#[test]
fn a_single_file_may_be_named() {
    let fixture = Fixture::new();
    fixture.write("cluster", pod("a"));
    let mut files = Files::new(fixture.path("cluster"));
    assert_eq!(own_keys(&files.read(NOW).unwrap().snapshot), ["Pod shop/a"]);
}

#[test]
fn what_kubectl_prints_is_read() {
    let mut fixture = Fixture::new();
    fixture.write(
        "all.yaml",
        "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: shop\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: a\n    namespace: shop\n    creationTimestamp: \"2024-05-01T10:00:00Z\"\nkind: List\nmetadata:\n  resourceVersion: \"\"\n",
    );
    let snapshot = fixture.read();
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    assert_eq!(keys(&snapshot), ["Pod shop/a", "Namespace shop"]);
}

#[test]
fn a_config_map_s_symlinks_give_each_object_once() {
    let mut fixture = Fixture::new();
    fixture.write("..2024_01_01/web.yaml", pod("old"));
    symlink("..2024_01_01", fixture.path("..data")).unwrap();
    symlink("..data/web.yaml", fixture.path("web.yaml")).unwrap();
    let before = fixture.read();
    assert_eq!(own_keys(&before), ["Pod shop/old"]);
    // kubelet makes a new directory and swaps the link over.
    fixture.write("..2024_01_02/web.yaml", pod("new"));
    symlink("..2024_01_02", fixture.path("..data_tmp")).unwrap();
    fs::rename(fixture.path("..data_tmp"), fixture.path("..data")).unwrap();
    fs::remove_dir_all(fixture.path("..2024_01_01")).unwrap();
    let after = fixture.read();
    assert_eq!(own_keys(&after), ["Pod shop/new"]);
    assert!(after.problems.is_empty(), "{:?}", after.problems);
}

#[test]
fn symlinks_in_circles_end() {
    let mut fixture = Fixture::new();
    fixture.write("a/x.yaml", pod("x"));
    symlink("..", fixture.path("a/up")).unwrap();
    symlink("a", fixture.path("b")).unwrap();
    symlink("a/x.yaml", fixture.path("y.yaml")).unwrap();
    let snapshot = fixture.read();
    assert_eq!(own_keys(&snapshot), ["Pod shop/x"]);
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
}

#[test]
fn one_object_in_two_places_is_a_problem_unless_both_say_the_same() {
    let mut fixture = Fixture::new();
    let labelled = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n";
    fixture.write("a.yaml", labelled);
    fixture.write("b.yaml", labelled);
    assert!(fixture.read().problems.is_empty());
    fixture.write(
        "c.yaml",
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    );
    let snapshot = fixture.read();
    let [problem] = problems(&snapshot)[..] else {
        panic!("{:?}", snapshot.problems);
    };
    assert!(
        problem.contains("/c.yaml:2: Namespace shop is also in "),
        "{problem}"
    );
    assert!(problem.contains("/b.yaml:1"), "{problem}");
    let Some(Object::Namespace(shop)) = snapshot.get(&ObjectKey::Namespace(Text::from("shop")))
    else {
        panic!("no namespace");
    };
    assert_eq!(shop.labels.iter().count(), 1, "the last one counts");
}

#[test]
fn a_broken_file_leaves_the_others_alone_and_is_named() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", "a: b\nkind: [Pod\n");
    fixture.write("b.yaml", pod("b"));
    fixture.write("c.json", "{\"kind\":\n");
    fixture.write("d.yaml", b"kind: \xff\n");
    let snapshot = fixture.read();
    assert_eq!(own_keys(&snapshot), ["Pod shop/b"]);
    let all = problems(&snapshot);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0].contains("/a.yaml:"), "{all:?}");
    assert!(all[1].contains("/c.json:2: "), "{all:?}");
    assert!(
        all[2].ends_with("/d.yaml:1: the file is not UTF-8"),
        "{all:?}"
    );
}

#[test]
fn a_file_that_breaks_keeps_its_objects_in_force() {
    let mut fixture = Fixture::new();
    fixture.write("p.yaml", [policy("one"), policy("two")].join("---\n"));
    let before = fixture.read();
    assert_eq!(own_keys(&before).len(), 2);
    for broken in [
        "kind: [".to_owned(),
        String::new(),
        "\u{0}".to_owned(),
        // The first document can be read, the second is lost.
        [policy("one"), "kind: [\n".to_owned()].join("---\n"),
        // So it can, and the other one has no name any more.
        [policy("one"), policy("two").replace("name: two, ", "")].join("---\n"),
    ] {
        fixture.write("p.yaml", &broken);
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let file = File::options().append(true).open(fixture.path("p.yaml"));
        file.unwrap().set_modified(hour_ago).unwrap();
        let after = fixture.read();
        assert!(diff(&before, &after).is_empty(), "{broken:?}");
        let all = problems(&after).join("\n");
        assert!(all.contains("stay in force"), "{broken:?}: {all}");
    }
    // Once it can be read it counts as it is.
    fixture.write("p.yaml", policy("two"));
    let after = fixture.read();
    assert_eq!(own_keys(&after), ["NetworkPolicy shop/two"]);
    assert!(after.problems.is_empty(), "{:?}", after.problems);
    // And so does its deletion.
    fs::remove_file(fixture.path("p.yaml")).unwrap();
    assert!(fixture.read().is_empty());
}

/// Whom it concerns would be another.
#[test]
fn an_object_whose_labels_break_stays_as_it_was() {
    let mut fixture = Fixture::new();
    let labelled = |labels: &str| {
        pod("a").replace("shop}", &format!("shop, labels: {labels}}}")) + "---\n" + &pod("b")
    };
    fixture.write("p.yaml", labelled("{app: web}"));
    let before = fixture.read();
    assert!(!before.unread);
    for broken in ["[web]", "app=web", "{app: [web]}"] {
        fixture.write("p.yaml", labelled(broken));
        let after = fixture.read();
        assert!(after.unread && diff(&before, &after).is_empty(), "{broken}");
        let all = problems(&after).join("\n");
        assert!(all.contains("Pod shop/a: metadata.labels"), "{all}");
        assert!(all.contains("stay in force"), "{all}");
    }
    fixture.write("p.yaml", labelled("{app: db}"));
    assert_eq!(diff(&before, &fixture.read()).len(), 1);
    // One that nobody knew is there all the same.
    fixture.write("q.yaml", pod("c").replace("shop}", "shop, labels: [web]}"));
    let after = fixture.read();
    assert!(after.unread && own_keys(&after).contains(&"Pod shop/c".to_owned()));
}

#[test]
fn a_file_that_breaks_and_is_deleted_is_gone() {
    let mut fixture = Fixture::new();
    fixture.write("p.yaml", policy("one"));
    fixture.read();
    fixture.write("p.yaml", "kind: [");
    assert_eq!(own_keys(&fixture.read()).len(), 1);
    fs::remove_file(fixture.path("p.yaml")).unwrap();
    assert!(fixture.read().is_empty());
}

#[test]
fn what_is_held_gives_way_to_what_is_written_elsewhere() {
    let mut fixture = Fixture::new();
    let labelled = |label: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{a: {label}}}}}\n"
        )
    };
    fixture.write("z.yaml", labelled("old"));
    fixture.read();
    fixture.write("z.yaml", "kind: [");
    fixture.write("a.yaml", labelled("new"));
    let snapshot = fixture.read();
    let Some(Object::Namespace(shop)) = snapshot.get(&ObjectKey::Namespace(Text::from("shop")))
    else {
        panic!("no namespace");
    };
    assert_eq!(shop.labels.get(&Text::from("a")), Some(&Text::from("new")));
}

#[test]
fn a_file_that_was_emptied_a_moment_ago_is_waited_for() {
    let reading = loop {
        let mut fixture = Fixture::new();
        fixture.write("p.yaml", policy("one"));
        fixture.read();
        let emptied = Instant::now();
        fixture.write("p.yaml", "");
        let reading = fixture.files.read(NOW).unwrap();
        // On a busy machine the moment may have passed.
        if emptied.elapsed() < EMPTY_AGE / 2 {
            break reading;
        }
    };
    assert!(reading.unsettled);
    assert_eq!(own_keys(&reading.snapshot), ["NetworkPolicy shop/one"]);
    assert!(reading.snapshot.problems.is_empty());
}

#[test]
fn comments_alone_are_a_way_to_say_that_there_is_nothing() {
    let mut fixture = Fixture::new();
    fixture.write("p.yaml", policy("one"));
    fixture.read();
    fixture.write("p.yaml", "# none\n");
    let snapshot = fixture.read();
    assert!(snapshot.is_empty());
    assert!(snapshot.problems.is_empty());
}

#[test]
fn a_dangling_symlink_keeps_what_it_gave() {
    let mut fixture = Fixture::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("p.yaml");
    fs::write(&target, policy("one")).unwrap();
    symlink(&target, fixture.path("p.yaml")).unwrap();
    assert_eq!(own_keys(&fixture.read()).len(), 1);
    fs::remove_file(&target).unwrap();
    let snapshot = fixture.read();
    assert_eq!(own_keys(&snapshot).len(), 1);
    assert!(problems(&snapshot)[0].contains("stays in force"));
    fs::remove_file(fixture.path("p.yaml")).unwrap();
    assert!(fixture.read().is_empty());
}

#[test]
fn nothing_at_the_root_is_an_error_and_forgets_nothing() {
    let mut fixture = Fixture::new();
    fixture.write("in/p.yaml", policy("one"));
    let mut files = Files::new(fixture.path("in"));
    files.read(NOW).unwrap();
    fs::rename(fixture.path("in"), fixture.path("out")).unwrap();
    let error = files.read(NOW).unwrap_err().to_string();
    assert!(error.contains("/in can't be read: No such file"), "{error}");
    fs::create_dir(fixture.path("in")).unwrap();
    fixture.write("in/p.yaml", "kind: [");
    assert_eq!(own_keys(&files.read(NOW).unwrap().snapshot).len(), 1);
    assert!(Files::new(fixture.path("in/p.yaml/x")).read(NOW).is_err());
    assert!(fixture.files.read(NOW).is_ok());
}

#[test]
fn a_file_that_has_just_changed_is_left_alone_until_it_settles() {
    let mut fixture = Fixture::new();
    let hour = Duration::from_secs(3600);
    fixture.write("p.yaml", policy("one"));
    let reading = fixture.files.read(hour).unwrap();
    assert!(reading.unsettled && reading.snapshot.is_empty());
    let reading = fixture.files.read(NOW).unwrap();
    assert!(!reading.unsettled && !reading.snapshot.is_empty());
    fixture.write("p.yaml", policy("two"));
    let reading = fixture.files.read(hour).unwrap();
    assert!(reading.unsettled);
    assert_eq!(own_keys(&reading.snapshot), ["NetworkPolicy shop/one"]);
    assert_eq!(own_keys(&fixture.read()), ["NetworkPolicy shop/two"]);
}

#[test]
fn namespaces_that_nobody_wrote_down_are_made_and_go_again() {
    let mut fixture = Fixture::new();
    fixture.write("p.yaml", policy("one"));
    let before = fixture.read();
    assert_eq!(
        before.origin(&ObjectKey::Namespace(Text::from("shop"))),
        None
    );
    assert_eq!(before.len(), 2);
    fs::remove_file(fixture.path("p.yaml")).unwrap();
    let events = diff(&before, &fixture.read());
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|e| matches!(e, Event::Delete { .. })));
}

#[test]
fn a_difference_names_what_has_changed_and_nothing_else() {
    let mut fixture = Fixture::new();
    let with_uid = |uid| pod("b").replace("name: b,", &format!("name: b, uid: {uid},"));
    fixture.write("a.yaml", pod("a"));
    fixture.write("b.yaml", with_uid("u1"));
    let first = fixture.read();
    assert!(diff(&first, &fixture.read()).is_empty());
    fixture.write("b.yaml", with_uid("u2"));
    let second = fixture.read();
    let [Event::Apply(Object::Pod(changed))] = &diff(&first, &second)[..] else {
        panic!("{:?}", diff(&first, &second));
    };
    assert_eq!(&*changed.uid, "u2");
    fs::remove_file(fixture.path("b.yaml")).unwrap();
    assert_eq!(
        diff(&second, &fixture.read()),
        [Event::Delete {
            key: ObjectKey::Pod(Text::from("shop"), Text::from("b")),
            uid: Some("u2".into()),
        }]
    );
}

#[test]
fn a_thousand_files_are_a_thousand_files() {
    let mut fixture = Fixture::new();
    for n in 0..1000 {
        fixture.write(&format!("{:02}/p{n}.yaml", n % 7), policy(&format!("p{n}")));
    }
    let before = fixture.read();
    assert_eq!(before.len(), 1001);
    fixture.write("03/p3.yaml", "kind: [");
    fs::remove_file(fixture.path("04/p4.yaml")).unwrap();
    fixture.write("05/p5.yaml", pod("p5"));
    let after = fixture.read();
    assert_eq!(after.len(), 1000);
    assert_eq!(diff(&before, &after).len(), 3);
}

#[test]
fn a_problem_is_one_line_whatever_the_file_says() {
    let mut fixture = Fixture::new();
    fixture.write(
        "p.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelector: {}, \"a\\nb\\e[31m\": 1}\n",
    );
    let snapshot = fixture.read();
    assert_eq!(snapshot.problems.len(), 1);
    assert!(!problems(&snapshot)[0].contains(char::is_control));
}

/// A file of this size that holds nothing but holes.
fn sparse(fixture: &Fixture, name: &str, size: u64) {
    let file = File::create(fixture.path(name)).unwrap();
    file.set_len(size).unwrap();
}

#[test]
fn a_file_that_grows_beyond_the_limit_is_said_and_leaves_what_it_gave() {
    let mut fixture = Fixture::new();
    fixture.files = Files::watched(fixture.directory.path());
    fixture.write("a.yaml", policy("web"));
    assert_eq!(own_keys(&fixture.read()), ["NetworkPolicy shop/web"]);
    sparse(&fixture, "a.yaml", limits::FILE + 1);
    let snapshot = fixture.read();
    assert_eq!(own_keys(&snapshot), ["NetworkPolicy shop/web"]);
    let [problem] = problems(&snapshot)[..] else {
        panic!("{:?}", problems(&snapshot));
    };
    assert!(
        problem.contains("more than 64 MiB") && problem.contains("stays in force"),
        "{problem}"
    );
    fixture.write("a.yaml", policy("api"));
    assert_eq!(own_keys(&fixture.read()), ["NetworkPolicy shop/api"]);
}

#[test]
fn a_pipe_or_a_device_among_the_files_holds_nothing_up() {
    let mut fixture = Fixture::new();
    fixture.files = Files::watched(fixture.directory.path());
    fixture.write("a.yaml", pod("a"));
    nix::unistd::mkfifo(&fixture.path("b.yaml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    symlink("/dev/zero", fixture.path("c.yaml")).unwrap();
    let snapshot = fixture.read();
    assert_eq!(own_keys(&snapshot), ["Pod shop/a"]);
    let problems = problems(&snapshot);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|p| p.contains("it is no regular file")));
}

#[test]
fn a_line_about_what_is_wrong_is_bounded_whatever_it_quotes() {
    let mut fixture = Fixture::new();
    let long = "x".repeat(1 << 20);
    fixture.write(
        "a.yaml",
        policy("web").replace("{podSelector: {}}", &format!("{{policyTypes: [{long}]}}")),
    );
    let snapshot = fixture.read();
    let [problem] = problems(&snapshot)[..] else {
        panic!("{} problems", problems(&snapshot).len());
    };
    assert_eq!(problem.chars().count(), limits::MESSAGE);
    assert!(problem.ends_with('…'));
}
