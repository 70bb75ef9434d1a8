//! The patches, and `patches/apply`, which patches a tree once, or says why not and changes nothing.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::{root, run, standin};
use tempfile::TempDir;

fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    standin::copy_tree(&root().join("tests/standin"), dir.path());
    dir
}

fn apply(args: &[&str], tree: &Path) -> (bool, String) {
    let Output { status, stdout, stderr } =
        Command::new(root().join("patches/apply")).args(args).arg(tree).output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).trim().to_owned())
}

fn sources(tree: &Path) -> [String; 3] {
    ["server/WebApi.cpp", "server/main.cpp", "server/WebApi.h"]
        .map(|file| fs::read_to_string(tree.join(file)).unwrap())
}

#[test]
fn a_tree_is_patched_once() {
    let dir = tree();
    let before = sources(dir.path());
    assert_eq!(apply(&["--check"], dir.path()), (true, "can be applied".into()));
    assert_eq!(sources(dir.path()), before);
    assert_eq!(apply(&[], dir.path()), (true, "applied".into()));
    let after = sources(dir.path());
    let hooks = |text: &String| text.matches("#ifdef ZLM_JOURNAL_").count();
    assert_eq!(after.each_ref().map(hooks), [1, 3, 1]);
    // Nothing was taken away.
    for (before, after) in before.iter().zip(&after) {
        assert!(before.lines().all(|line| after.contains(line)));
    }
    for args in [&[][..], &["--check"]] {
        assert_eq!(apply(args, dir.path()), (true, "already applied".into()));
    }
    assert_eq!(sources(dir.path()), after);
}

#[test]
fn a_tree_inside_another_repository_is_patched_too() {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("git").args(["init", "-q"]).arg(dir.path()));
    let tree = dir.path().join("third_party/ZLMediaKit");
    standin::copy_tree(&root().join("tests/standin"), &tree);
    assert_eq!(apply(&[], &tree), (true, "applied".into()));
    assert!(sources(&tree)[0].contains("ZLM_JOURNAL_CALL("));
}

#[test]
fn another_indentation_does_no_harm() {
    let dir = tree();
    let file = dir.path().join("server/main.cpp");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("    ", "\t")).unwrap();
    assert_eq!(apply(&[], dir.path()), (true, "applied".into()));
    assert_eq!(apply(&[], dir.path()), (true, "already applied".into()));
}

/// Release 8.0 has the class in another file.
#[test]
fn a_class_that_stands_in_the_other_file_is_found_there() {
    let dir = tree();
    let [header, source] = ["server/WebApi.h", "server/WebApi.cpp"].map(|file| dir.path().join(file));
    let anchor = "    std::unordered_map<std::string, Pointer> _map;\n";
    let with = fs::read_to_string(&header).unwrap();
    assert_eq!(with.matches(anchor).count(), 1);
    fs::write(&header, with.replace(anchor, "")).unwrap();
    let (applied, said) = apply(&[], dir.path());
    assert!(!applied && said.contains("_map;") && said.contains("server/WebApi.h"), "{said}");
    fs::write(&source, fs::read_to_string(&source).unwrap() + anchor).unwrap();
    assert_eq!(apply(&["--check"], dir.path()), (true, "can be applied".into()));
    assert_eq!(apply(&[], dir.path()), (true, "applied".into()));
    assert_eq!(apply(&[], dir.path()), (true, "already applied".into()));
    assert!(fs::read_to_string(&source).unwrap().contains("ZLM_JOURNAL_MAP(Type) _map;"));
    // In both it would be told twice.
    fs::write(&header, with).unwrap();
    let (applied, said) = apply(&[], dir.path());
    assert!(!applied && said.contains("more than one file"), "{said}");
}

#[test]
fn carriage_returns_do_no_harm() {
    let dir = tree();
    let file = dir.path().join("server/WebApi.h");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace('\n', "\r\n")).unwrap();
    assert_eq!(apply(&[], dir.path()), (true, "applied".into()));
    assert_eq!(apply(&[], dir.path()), (true, "already applied".into()));
}

#[test]
fn a_tree_that_does_not_fit_is_told_and_left_alone() {
    let anchor = "it->second(parser, invoker, *helper);";
    for (replacement, times) in [("it->second(parser);".to_owned(), 0), (format!("{anchor}\n{anchor}"), 2)] {
        let dir = tree();
        let file = dir.path().join("server/WebApi.cpp");
        fs::write(&file, fs::read_to_string(&file).unwrap().replace(anchor, &replacement)).unwrap();
        let before = sources(dir.path());
        let (applied, said) = apply(&[], dir.path());
        assert!(!applied && said.contains(anchor) && said.contains(&format!("{times} times")), "{said}");
        assert_eq!(sources(dir.path()), before);
    }
}

#[test]
fn a_tree_that_is_patched_in_part_is_told() {
    let dir = tree();
    let main = sources(dir.path())[1].clone();
    assert!(apply(&[], dir.path()).0);
    fs::write(dir.path().join("server/main.cpp"), main).unwrap();
    let (applied, said) = apply(&[], dir.path());
    assert!(!applied && said.contains("2 of 5 hooks"), "{said}");
}

#[test]
fn what_is_no_tree_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (applied, said) = apply(&[], dir.path());
    assert!(!applied && said.contains("usage"), "{said}");
}

#[test]
fn a_patched_tree_without_the_plugin_is_the_stock_server_to_the_compiler() {
    let tree = tempfile::tempdir().unwrap();
    standin::copy_tree(&root().join("tests/standin"), tree.path());
    let json = ["/usr/include/jsoncpp", "/usr/local/include/jsoncpp"].map(|dir| format!("-I{dir}"));
    let preprocessed = || {
        ["WebApi.cpp", "main.cpp"].map(|file| {
            let mut compiler = Command::new("c++");
            compiler.args(["-std=c++11", "-E", "-P"]).args(&json).arg("-I").arg(tree.path());
            run(compiler.arg(tree.path().join("server").join(file)))
        })
    };
    let stock = preprocessed();
    standin::apply_patches(tree.path());
    assert!(fs::read_to_string(tree.path().join("server/WebApi.cpp")).unwrap().contains("ZLM_JOURNAL_CALL("));
    assert!(preprocessed() == stock, "the patched lines leave something behind");
}

#[test]
fn a_patch_only_adds_quotes_one_line_a_hunk_and_lands_at_its_anchors() {
    let files = fs::read_dir(root().join("patches")).unwrap().map(|entry| entry.unwrap().path());
    let patches: Vec<_> = files.filter(|path| path.extension().is_some_and(|name| name == "patch")).collect();
    assert_eq!(patches.len(), 4);
    for patch in patches {
        let text = fs::read_to_string(&patch).unwrap();
        for hunk in text.split("\n@@ ").skip(1) {
            let lines: Vec<&str> = hunk.lines().skip(1).collect();
            let quoted = lines.iter().filter(|line| line.starts_with(' ')).count();
            assert!(quoted <= 1, "{}: {hunk}", patch.display());
            assert!(lines.iter().all(|line| line.starts_with([' ', '+'])), "add-only: {hunk}");
        }
    }
    let tree = tempfile::tempdir().unwrap();
    standin::copy_tree(&root().join("tests/standin"), tree.path());
    standin::apply_patches(tree.path());
    let hooked = fs::read_to_string(tree.path().join("server/main.cpp")).unwrap();
    let lines: Vec<&str> = hooked.lines().map(str::trim).collect();
    for (hook, before) in [
        ("ZLM_JOURNAL_OPEN();", "installWebApi();"),
        ("ZLM_JOURNAL_RESTORE();", "sem.wait();"),
        ("ZLM_JOURNAL_CLOSE();", "unInstallWebApi();"),
    ] {
        let at = lines.iter().position(|line| *line == hook).unwrap();
        assert_eq!((lines[at + 1], lines[at + 2]), ("#endif", before));
    }
}
