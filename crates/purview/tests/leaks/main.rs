//! `leak::Check`, in a process of its own: from the first check on, every context in a process is told of.

mod checks;
mod goker;
mod reports;
mod support;
