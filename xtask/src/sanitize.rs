//! `cargo xtask sanitize`: the tests under what looks on more closely.
//!
//! The compiler's unstable switches are used by a stable compiler, in folders of their own below `target`. ThreadSanitizer also needs a
//! standard library that is built for it: Debian's `rustc-web` has the sources, and is unpacked below `target`, not installed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, output, run, section};

pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) const ADDRESS: &str =
    "-Zsanitizer=address -Cforce-frame-pointers=yes --cfg purview_sanitize";
pub(crate) const THREAD: &str = "-Zsanitizer=thread --cfg purview_sanitize";

type Stage = fn(&Path) -> Outcome;

/// By name, in the order in which they are run.
const STAGES: [(&str, Stage); 7] = [
    ("address", address),
    ("realtime", realtime),
    ("layout", layout),
    ("abort", abort),
    ("memcheck", memcheck),
    ("thread", thread),
    ("careful", careful),
];

/// Those that CI runs: the others take longer, or see less.
const SHORT: [&str; 2] = ["address", "realtime"];

pub(crate) fn sanitize(root: &Path, names: &[&str]) -> Outcome {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("skipped: sanitizers are run on Linux on x86_64");
        return Ok(());
    }
    let names: Vec<&str> = match names {
        [] => STAGES.iter().map(|(name, _)| *name).collect(),
        ["short"] => SHORT.to_vec(),
        names => names.to_vec(),
    };
    for name in names {
        let found = STAGES.iter().find(|(known, _)| *known == name);
        let Some((_, stage)) = found else {
            let known = STAGES.map(|(name, _)| name).join(" ");
            return Err(format!("cargo xtask sanitize [short | {known}]: what is {name}?"));
        };
        section(name, || stage(root))?;
    }
    Ok(())
}

/// Tests with these flags, in a folder of their own.
fn tests(folder: &str, flags: &str, more: &[(&str, &str)], tests: &[(&str, &str)]) -> Outcome {
    let folder = format!("target/{folder}");
    let mut env =
        vec![("RUSTC_BOOTSTRAP", "1"), ("RUSTFLAGS", flags), ("CARGO_TARGET_DIR", &folder)];
    env.extend(more);
    for (package, test) in tests {
        let args = ["test", "--quiet", "--target", TARGET, "-p", package, "--test", test];
        run("cargo", &args, &env)?;
    }
    Ok(())
}

/// Use after free, of stack frames, too; and leaks, but for those that tests make on purpose (leaks.txt).
fn address(root: &Path) -> Outcome {
    let leaks = root.join("xtask/src/sanitize/leaks.txt");
    let leaks = format!("suppressions={}:print_suppressions=0", leaks.display());
    let more =
        [("ASAN_OPTIONS", "detect_stack_use_after_return=1"), ("LSAN_OPTIONS", leaks.as_str())];
    tests(
        "address",
        ADDRESS,
        &more,
        &[("purview", "it"), ("purview", "leaks"), ("purview-tokio", "it")],
    )
}

/// What is asked of a context neither blocks nor allocates.
fn realtime(_: &Path) -> Outcome {
    tests(
        "realtime",
        "-Zsanitizer=realtime --cfg purview_realtime",
        &[],
        &[("purview", "realtime")],
    )
}

/// Fields in another order than the compiler would have them.
fn layout(_: &Path) -> Outcome {
    tests("layout", "-Zrandomize-layout", &[], &[("purview", "it"), ("purview", "faults")])
}

/// The examples, where a panic ends the process.
fn abort(_: &Path) -> Outcome {
    let env = [("RUSTFLAGS", "-Cpanic=abort"), ("CARGO_TARGET_DIR", "target/abort")];
    for example in EXAMPLES {
        run("cargo", &["run", "--quiet", "-p", "purview-examples", "--bin", example], &env)?;
    }
    Ok(())
}

/// Small programs that end by themselves.
const EXAMPLES: [&str; 6] = [
    "cleanup_with_grace",
    "manual_clock",
    "merging",
    "propagation_tree",
    "select_on_threads",
    "thread_and_task",
];

/// The same under valgrind, which sees what no instrumented code does.
fn memcheck(root: &Path) -> Outcome {
    if output("valgrind", &["--version".into()], &[]).is_err() {
        println!("skipped: there is no valgrind");
        return Ok(());
    }
    let env = [("CARGO_TARGET_DIR", "target/memcheck")];
    run("cargo", &["build", "--quiet", "-p", "purview-examples", "--bins"], &env)?;
    for example in EXAMPLES {
        let program = root.join("target/memcheck/debug").join(example).display().to_string();
        let leaks =
            ["--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"];
        let args = [&["--quiet", "--error-exitcode=9", "--fair-sched=yes"], &leaks[..]].concat();
        run("valgrind", &[&args[..], &[&program]].concat(), &[])?;
    }
    Ok(())
}

/// Data races. It knows no fences: with `purview_sanitize` there are loads in their place.
fn thread(root: &Path) -> Outcome {
    with_own_std(root, "thread", THREAD)
}

/// The standard library's own assertions, too, and the compiler's checks of what `unsafe` code makes: what cargo-careful switches on.
fn careful(root: &Path) -> Outcome {
    with_own_std(
        root,
        "careful",
        "-Zstrict-init-checks -Zextra-const-ub-checks -Cdebug-assertions=on --cfg careful",
    )
}

/// Tests with these flags, with a standard library that is built with them.
fn with_own_std(root: &Path, folder: &str, flags: &str) -> Outcome {
    let own = match OwnStd::new(root, folder, flags) {
        Ok(own) => own,
        Err(why) => {
            println!("skipped: a standard library that is built for it: {}", why.trim());
            return Ok(());
        }
    };
    for (package, test) in [("purview", "it"), ("purview-tokio", "it")] {
        let target = ["--target", TARGET, "-Zbuild-std", "--quiet"];
        let args = [&["test", "-p", package, "--test", test], &target[..]].concat();
        run(&own.cargo, &args, &own.env())?;
    }
    Ok(())
}

/// A cargo and the environment with which it builds the standard library, too.
pub(crate) struct OwnStd {
    pub(crate) cargo: String,
    env: Vec<(&'static str, String)>,
}

impl OwnStd {
    pub(crate) fn new(root: &Path, folder: &str, flags: &str) -> Result<OwnStd, String> {
        let usr = unpacked(&root.join("target/tools/debian"))?;
        let path = |part: &str| usr.join(part).display().to_string();
        let libraries = format!("{}:{}", path("lib/x86_64-linux-gnu"), path("lib/llvm-22/lib"));
        let env = vec![
            ("LD_LIBRARY_PATH", libraries),
            ("RUSTC", path("bin/rustc")),
            ("RUSTDOC", path("bin/rustdoc")),
            ("RUSTC_BOOTSTRAP", "1".into()),
            ("RUSTFLAGS", flags.into()),
            ("TSAN_OPTIONS", "halt_on_error=1".into()),
            ("CARGO_TARGET_DIR", format!("target/{folder}")),
        ];
        Ok(OwnStd { cargo: path("bin/cargo"), env })
    }

    pub(crate) fn env(&self) -> Vec<(&str, &str)> {
        self.env.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

/// A compiler of Debian's with the sources of its standard library, and the sanitizers' own libraries from the compiler that there is.
fn unpacked(folder: &Path) -> Result<PathBuf, String> {
    const PACKAGES: [&str; 15] = [
        "rustc-web",
        "cargo-web",
        "libstd-rust-web-dev",
        "libstd-rust-web-1.96",
        "rust-web-src",
        "libllvm22",
        "llvm-22",
        "llvm-22-runtime",
        "libgit2-1.5",
        "libmbedtls14",
        "libmbedcrypto7",
        "libmbedx509-1",
        "libssh2-1",
        "libhttp-parser2.9",
        "libpfm4",
    ];
    let usr = folder.join("root/usr");
    let done = folder.join("unpacked");
    if done.exists() {
        return Ok(usr);
    }
    println!("fetching Debian's rustc-web");
    let complain = |err: std::io::Error| format!("{}: {err}", folder.display());
    fs::create_dir_all(folder.join("root")).map_err(complain)?;
    // A list of packages that is old, or empty, does not know them; only root may fetch a new one.
    let shell = format!(
        "cd '{}' && fetch() {{ apt-get download -qq {}; }} && {{ fetch || {{ apt-get update -qq && fetch; }}; }} \
         && for it in *.deb; do dpkg -x \"$it\" root; done",
        folder.display(),
        PACKAGES.join(" "),
    );
    output("sh", &["-c".into(), shell], &[])?;
    let own = output("rustc", &["--print".into(), "sysroot".into()], &[])?;
    let lib = Path::new("lib/rustlib").join(TARGET).join("lib/librustc-stable_rt.tsan.a");
    let _ = fs::remove_file(usr.join(&lib)); // copying goes through a link, to whatever is at its end
    fs::copy(Path::new(own.trim()).join(&lib), usr.join(&lib)).map_err(complain)?;
    fs::write(done, "").map_err(complain)?;
    Ok(usr)
}
