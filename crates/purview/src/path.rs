//! How a context is written: its path from the root, as Go prints it, and its state.
//!
//! No lock is taken. What is the user's, a cause or a visible value, writes itself.
#![expect(unsafe_code, reason = "walks up, and along the values that a node owns")]

use std::fmt;

use crate::Context;
use crate::clock::Tick;
use crate::tree::{Head, Kind};
use crate::value;

/// Of a longer path only the ends are written: this many contexts at either.
const SHOWN: usize = 16;

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = vec![self.as_ref().head()];
        let mut near = None;
        let mut length = 1;
        let mut last = path[0];
        while let Some(parent) = last.parent() {
            // Keep the nearest, and a ring of the farthest, so that a path of a million takes no memory.
            if path.len() == 2 * SHOWN {
                near.get_or_insert(SHOWN);
                path.remove(SHOWN);
            }
            path.push(parent);
            length += 1;
            last = parent;
        }
        f.write_str("Context(")?;
        for (i, head) in path.iter().enumerate().rev() {
            if Some(i + 1) == near {
                write!(f, "…({} more).", length - path.len())?;
            }
            segment(self, head, f)?;
            if i > 0 {
                f.write_str(".")?;
            }
        }
        match self.err() {
            None => f.write_str(", live)"),
            Some(err) => write!(f, ", {err})"),
        }
    }
}

/// One context of the path.
fn segment(context: &Context, head: &Head, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let kind = match head.kind() {
        Kind::Background => return f.write_str("background"),
        Kind::Todo => return f.write_str("todo"),
        Kind::Manual => return f.write_str("manual"),
        Kind::Value => {
            f.write_str("value(")?;
            if let Some(link) = head.values {
                // SAFETY: a layer's own first link, which the context keeps.
                unsafe { value::describe_link(link, f)? };
            }
            return f.write_str(")");
        }
        Kind::Cancel => "cancel",
        Kind::Timeout => "timeout",
        Kind::Deadline => "deadline",
        Kind::Grace => "grace",
        Kind::AnyOf => "any_of",
        Kind::WithoutCancel => "without_cancel",
    };
    let node = head.scope();
    if let Some(name) = node.name() {
        write!(f, "{name}:")?;
    }
    f.write_str(kind)?;
    match head.kind() {
        Kind::Timeout | Kind::Deadline if node.own_deadline() != Tick::NEVER => {
            write!(f, "({:.2?})", node.own_deadline().since(context.clock().now()))?;
        }
        Kind::Grace => {
            if let Some(grace) = node.grace() {
                write!(f, "({grace:?})")?;
            }
        }
        _ => {}
    }
    if head.kind() == Kind::AnyOf {
        return Ok(());
    }
    let mut own = head.values;
    for _ in 0..node.own_values() {
        let Some(link) = own else { break };
        f.write_str("+value(")?;
        // SAFETY: one of the node's own links, which the context keeps.
        unsafe { value::describe_link(link, f)? };
        f.write_str(")")?;
        // SAFETY: as above.
        own = unsafe { value::next(link) };
    }
    Ok(())
}
