//! How an end travels: down, at once, and never up or sideways.
//!
//! Derives background → cancel → timeout → value, with a second branch beside it, and prints the tree
//! three times: alive, after the timeout, and after the cancel. Teaches that
//! - a child ends with its parent, and with the *same* error: cause and origin are those of the end,
//!   not of the place where it is noticed;
//! - a child that has ended changes nothing for its parent and its siblings;
//! - the first end stays: what ended by its deadline is not canceled later.
//!
//! Run it: `cargo run -p purview-examples --bin propagation_tree`
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::time::Duration;

use purview::{Context, Key};

static USER_ID: Key<u64> = Key::new("user_id");

fn main() {
    let background = Context::background();
    let (server, stop) = background.derive().name("server").build();
    let (request, _guard) = server
        .derive()
        .name("request")
        .timeout(Duration::from_secs(1))
        .deadline_cause("the answer took too long")
        .build();
    let handler = request.with_value(&USER_ID, 123);
    let (stream, _guard) = server.derive().name("stream").build();

    let user_id = handler.value(&USER_ID).expect("it was set three lines above");
    let tree = [
        ("background".to_owned(), &background),
        ("└─ cancel: server".to_owned(), &server),
        ("   ├─ timeout: request".to_owned(), &request),
        (format!("   │  └─ value: user_id={user_id}"), &handler),
        ("   └─ cancel: stream".to_owned(), &stream),
    ];

    print("Everything is alive.", &tree);

    handler.done().wait(); // the value has no end of its own: it waits for the request's
    print("\nThe request's time is up: its branch has ended, the other has not.", &tree);

    stop.cancel_with("shutting down");
    print("\nThe server is canceled: all below it that was alive has ended.", &tree);
}

fn print(title: &str, tree: &[(String, &Context)]) {
    println!("{title}");
    for (label, ctx) in tree {
        println!("{label:<30} {}", state(ctx));
    }
}

/// Whether a context has ended, and if so: why, where that began, and by what.
fn state(ctx: &Context) -> String {
    match ctx.err() {
        None => "live".to_owned(),
        Some(err) => {
            let origin = err.origin();
            let began = origin.name().unwrap_or("no name");
            format!("{err} [{began}, {:?}]", origin.by())
        }
    }
}
