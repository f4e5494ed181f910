use crate::team::Block;
pub(crate) fn play(_: &Block<'_>) {}
