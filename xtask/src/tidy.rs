//! Promises about the project itself, each a check.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, output};

/// Lines of code, without comments, blank lines and tests, that a source file may have.
const MOST_LINES: usize = 300;

/// What is wrong, if anything; or why that could not be found out.
type Found = Result<Vec<String>, String>;
type Check = fn(&Path) -> Found;

pub(crate) fn run(root: &Path) -> Outcome {
    let checks: [(&str, Check); 10] = [
        ("the core has no dependencies", core_has_no_dependencies),
        ("every promise has a test", promises_have_tests),
        ("every fault has a test", faults_have_tests),
        ("a build changes nothing else", builds_are_alike),
        ("tests that are named are there", named_tests_are_there),
        ("differences from Go are told and applied", differences_are_told),
        ("files are short, or say why not", files_are_short),
        ("each unsafe module says why", unsafe_has_reasons),
        ("documents name what there is", documents_are_true),
        ("one spelling of each idea", spellings),
    ];
    let mut complaints = Vec::new();
    for (name, check) in checks {
        let found = check(root)?;
        println!("{} {name}", if found.is_empty() { "ok  " } else { "FAIL" });
        complaints.extend(found);
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(format!("tidy:\n  {}", complaints.join("\n  ")))
    }
}

fn core_has_no_dependencies(_: &Path) -> Found {
    let args = ["tree", "-p", "purview", "-e", "normal,build"].map(String::from);
    let tree = output("cargo", &args, &[])?;
    let lines: Vec<&str> = tree.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(if lines.len() == 1 { Vec::new() } else { vec![format!("cargo tree -p purview:\n{tree}")] })
}

fn promises_have_tests(root: &Path) -> Found {
    let promises = read(&root.join("PROMISES.md"))?;
    let mut tests = String::new();
    for file in sources(&root.join("crates/purview/tests"))? {
        tests.push_str(&read(&file)?);
    }
    let numbers = promises.lines().filter_map(|line| line.strip_prefix("- **C")?.split_once("**"));
    let numbers: Vec<&str> = numbers.map(|(number, _)| number).collect();
    let mut missing: Vec<String> = numbers
        .iter()
        .filter(|number| !tests.contains(&format!("fn c{number}_")))
        .map(|number| format!("PROMISES.md: C{number} has no test named c{number}_…"))
        .collect();
    if numbers.len() < 41 {
        missing.push(format!("PROMISES.md: only {} promises were found", numbers.len()));
    }
    Ok(missing)
}

/// The faults of FAULTS.md, and the tests that it names.
fn faults_have_tests(root: &Path) -> Found {
    const FAULTS: usize = 40;
    let faults = read(&root.join("FAULTS.md"))?;
    let mut found = Vec::new();
    for number in 1..=FAULTS {
        let rows =
            faults.lines().filter(|line| line.starts_with(&format!("| F{number} |"))).count();
        if rows != 1 {
            found.push(format!("FAULTS.md: F{number} is there {rows} times"));
        }
    }
    for row in faults.lines().filter(|line| line.starts_with("| F") && !line.starts_with("| F |")) {
        let tests: Vec<&str> =
            row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        if tests.is_empty() && !row.ends_with("| — |") {
            found.push(format!("FAULTS.md: neither a test nor a dash: {row}"));
        }
        for test in tests {
            if !is_test(root, test)? {
                found.push(format!("FAULTS.md: there is no {test}"));
            }
        }
    }
    Ok(found)
}

/// Tests that tables name without saying where they are: what has three underscores or more is one.
fn named_tests_are_there(root: &Path) -> Found {
    let mut all = String::new();
    for folder in ["crates", "conformance"] {
        for file in sources(&root.join(folder))? {
            all.push_str(&read(&file)?);
        }
    }
    let mut found = Vec::new();
    for document in ["GO.md", "conformance/README.md"] {
        let text = read(&root.join(document))?;
        let rows = text.lines().filter(|line| line.starts_with('|'));
        for name in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
            let is_name = name.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            let is_test = is_name && name.matches('_').count() >= 3;
            if is_test && !all.contains(&format!("fn {name}(")) {
                found.push(format!("{document}: there is no test {name}"));
            }
        }
    }
    Ok(found)
}

/// Of the table in conformance/README.md: each is told in GO.md, and named in the files that apply it.
fn differences_are_told(root: &Path) -> Found {
    let folder = root.join("conformance");
    let readme = read(&folder.join("README.md"))?;
    let go = read(&root.join("GO.md"))?;
    let told = mentions(&go);
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| D")?.split_once(" |"));
    let rows: Vec<(&str, &str)> = rows.collect();
    let mut found = Vec::new();
    for (number, row) in &rows {
        if !told.contains(number) {
            found.push(format!("GO.md does not tell of D{number}"));
        }
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let files: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        if files.is_empty() {
            found.push(format!("conformance/README.md: D{number} is applied nowhere"));
        }
        for file in files {
            if !mentions(&read(&folder.join(file))?).contains(number) {
                found.push(format!("conformance/{file} does not name D{number}"));
            }
        }
    }
    let unknown = told.iter().filter(|it| rows.iter().all(|(number, _)| number != *it));
    found.extend(unknown.map(|number| format!("GO.md: there is no D{number}")));
    Ok(found)
}

/// The numbers of the differences that a text names.
fn mentions(text: &str) -> Vec<&str> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric());
    let numbers = words.filter_map(|word| word.strip_prefix('D'));
    numbers.filter(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit())).collect()
}

/// Whether there is a function of that name where the path says: `crate::binary::module::test`, or `crate::module::tests::test`.
fn is_test(root: &Path, path: &str) -> Result<bool, String> {
    let parts: Vec<&str> = path.split("::").collect();
    let [name, modules @ .., test] = &parts[..] else { return Ok(false) };
    let folder = root.join("crates").join(name.replace('_', "-"));
    let modules: PathBuf = modules.iter().filter(|module| **module != "tests").collect();
    let files = ["tests", "src"].map(|part| folder.join(part).join(&modules));
    for file in files.iter().flat_map(|file| [file.with_extension("rs"), file.join("main.rs")]) {
        if file.exists() && read(&file)?.contains(&format!("fn {test}(")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nothing depends on how it is built, nothing is exported by name, and the models' cfgs are the tests'.
fn builds_are_alike(root: &Path) -> Found {
    let wrong = ["cfg(panic", "panic = \"abort\"", "no_mangle", "export_name", "link_section"];
    let mut found = Vec::new();
    for file in sources(&root.join("crates"))? {
        let text = read(&file)?;
        if file.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let bad = wrong.into_iter().filter(|bad| text.contains(bad));
        found.extend(bad.map(|bad| format!("{}: {bad}", file.display())));
        for cfg in ["purview_loom", "purview_shuttle"] {
            let alone = text.replace(&format!("all(test, {cfg})"), "");
            let alone = alone.replace(&format!("all(test, not({cfg}))"), "");
            for line in alone.lines().filter(|line| line.contains(cfg)) {
                if !line.trim_start().starts_with("//") {
                    found.push(format!("{}: without test: {line}", file.display()));
                }
            }
        }
    }
    Ok(found)
}

fn files_are_short(root: &Path) -> Found {
    let reasons = read(&root.join("ARCHITECTURE.md"))?;
    let mut long = Vec::new();
    for folder in ["crates", "benches", "conformance/src", "demo/src", "examples/src", "xtask/src"]
    {
        for file in sources(&root.join(folder))? {
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            let lines = code_lines(&read(&file)?);
            if !name.contains("/tests/")
                && lines > MOST_LINES
                && !reasons.contains(&format!("- `{name}`"))
            {
                long.push(format!(
                    "{name}: {lines} lines of code, and no line in ARCHITECTURE.md says why"
                ));
            }
        }
    }
    Ok(long)
}

/// Lines that are neither blank nor comment, up to the tests at the end.
fn code_lines(text: &str) -> usize {
    let lines = text.lines().map(str::trim);
    let code = lines.take_while(|line| {
        !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test, not(")
    });
    code.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

fn unsafe_has_reasons(root: &Path) -> Found {
    let mut found = Vec::new();
    for file in sources(&root.join("crates"))? {
        let text = read(&file)?;
        if text.contains("allow(unsafe_code") {
            found.push(format!("{}: expect(unsafe_code, reason = …), not allow", file.display()));
        }
    }
    Ok(found)
}

fn documents_are_true(root: &Path) -> Found {
    let readme = read(&root.join("README.md"))?;
    let mut found = Vec::new();
    for file in sources(&root.join("examples/src/bin"))? {
        let name =
            file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !readme.contains(&name) {
            found.push(format!("README.md does not name the example {name}"));
        }
    }
    for document in [
        "README.md",
        "GO.md",
        "COMPARE.md",
        "ARCHITECTURE.md",
        "BENCHMARKS.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "FAULTS.md",
        "conformance/README.md",
        "conformance/MUTANTS.md",
    ] {
        let text = read(&root.join(document))?;
        let folder = root.join(document).parent().unwrap_or(root).to_path_buf();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                found.push(format!("{document}: there is no {target}"));
            }
        }
    }
    let architecture = read(&root.join("ARCHITECTURE.md"))?;
    for file in sources(&root.join("crates"))? {
        let path = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        // As in the crate's own part there: from its src folder on.
        let Some((_, name)) = path.split_once("/src/") else { continue };
        if !architecture.contains(name) {
            found.push(format!("ARCHITECTURE.md does not name {path}"));
        }
    }
    let rust_version = read(&root.join("Cargo.toml"))?;
    let msrv =
        rust_version.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next());
    if !msrv.is_some_and(|version| readme.contains(version)) {
        found.push("README.md does not name the rust-version of Cargo.toml".into());
    }
    Ok(found)
}

fn spellings(root: &Path) -> Found {
    let wrong = [
        (concat!("Cancellation", " safety"), "Cancel safety"),
        (concat!("// Safety", ":"), "// SAFETY:"),
        (concat!("cancel", "led"), "canceled"),
        (concat!("cancel", "ling"), "canceling"),
        (concat!("thread::", "sleep("), "a wait for what is to happen"),
    ];
    // Names of other libraries are as they are.
    let theirs = [concat!("is_cancel", "led"), concat!("cancel", "led_owned")];
    let mut found = Vec::new();
    for file in sources(&root.join("crates"))? {
        for (number, line) in read(&file)?.lines().enumerate() {
            let line = theirs.iter().fold(line.to_string(), |line, name| line.replace(name, ""));
            for (bad, good) in wrong {
                if line.contains(bad) {
                    found.push(format!("{}:{}: {bad} → {good}", file.display(), number + 1));
                }
            }
        }
    }
    Ok(found)
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|err| format!("{}: {err}", file.display()))
}

/// All Rust files below `folder`.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).map_err(|err| format!("{}: {err}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|err| format!("{}: {err}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
