//! The layout that docs/architecture.md draws: imports run one way, between the rooms of src/ and between the files of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each room may import those after it, and nothing else.
const ROOMS: [&str; 14] = [
    "ffi",
    "api",
    "alerts",
    "plugin",
    "capture",
    "reconcile",
    "journal",
    "storage",
    "settings",
    "memory",
    "page",
    "model",
    "error",
    "lib",
];

type Module = Vec<String>;

/// The modules of src/ without their tests, each with what its `use` lines name.
fn modules() -> BTreeMap<Module, Vec<Module>> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let root = folders[0].clone();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let inner = path.strip_prefix(&root).unwrap().with_extension("");
            let mut module: Module = inner.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs")
                && !module.iter().any(|part| part.contains("test") || part == "simulation")
            {
                module.pop_if(|last| last == "mod");
                let text = fs::read_to_string(&path).unwrap();
                modules.insert(module.clone(), uses(&module, &text));
            }
        }
    }
    modules
}

fn uses(module: &Module, text: &str) -> Vec<Module> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let statements = code.split("\nuse ").skip(1).chain(code.split("\npub use ").skip(1));
    let paths =
        statements.flat_map(|rest| expanded(&rest.split(';').next().unwrap().replace(char::is_whitespace, "")));
    let absolute = paths.filter_map(|path| {
        let mut parts: Vec<String> = path.split("::").map(str::to_owned).collect();
        let mut base: Module = match parts[0].as_str() {
            "crate" => Vec::new(),
            "self" | "super" => module.clone(),
            _ => return None,
        };
        while parts[0] == "super" {
            base.pop();
            parts.remove(0);
        }
        base.extend(parts.into_iter().filter(|part| part != "crate" && part != "self"));
        Some(base)
    });
    absolute.collect()
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, group)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for char in group[..group.len() - 1].chars() {
        depth += i32::from(char == '{') - i32::from(char == '}');
        match char {
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(char),
        }
    }
    parts.iter().filter(|part| !part.is_empty()).flat_map(|part| expanded(&format!("{before}{part}"))).collect()
}

/// The module of ours that a path leads into, where it is none of the crate's root.
fn target<'a>(modules: &'a BTreeMap<Module, Vec<Module>>, path: &[String]) -> Option<&'a Module> {
    let ends = (1..=path.len()).rev();
    ends.filter_map(|end| modules.get_key_value(&path[..end])).map(|(module, _)| module).next()
}

#[test]
fn rooms_import_one_way() {
    let modules = modules();
    let place = |module: &Module| ROOMS.iter().position(|room| *room == module[0]).expect(&module[0]);
    for (module, paths) in &modules {
        for to in paths.iter().filter_map(|path| target(&modules, path)) {
            assert!(place(module) <= place(to), "{module:?} imports {to:?}");
        }
    }
}

#[test]
fn files_of_a_room_import_each_other_without_a_circle() {
    let modules = modules();
    let is_family = |a: &Module, b: &Module| a.starts_with(b) || b.starts_with(a);
    // What imports nothing that is left goes, until nothing is left.
    let mut left: BTreeMap<&Module, BTreeSet<&Module>> = modules
        .iter()
        .map(|(module, paths)| {
            let to = paths.iter().filter_map(|path| target(&modules, path));
            (module, to.filter(|to| !is_family(module, to)).collect())
        })
        .collect();
    assert!(left.len() > 40 && left.values().map(BTreeSet::len).sum::<usize>() > 100, "the files are not found");
    loop {
        let done: BTreeSet<&Module> = left
            .iter()
            .filter(|(_, to)| !to.iter().any(|to| left.contains_key(*to)))
            .map(|(module, _)| *module)
            .collect();
        if done.is_empty() {
            break;
        }
        left.retain(|module, _| !done.contains(module));
    }
    assert!(left.is_empty(), "these import each other in a circle: {left:#?}");
}

#[test]
fn the_fleet_uses_nothing_of_the_plugin_but_its_model() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["fleet/src", "fleet/src/place"].map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let files = folders.into_iter().flatten().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut uses = 0;
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("zlm_journal::") {
            assert!(text[at..].starts_with("zlm_journal::model::"), "{}", path.display());
            uses += 1;
        }
    }
    assert!(uses > 0);
}
