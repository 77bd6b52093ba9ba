//! What is wrong with settings and files, collected so that all of it can be said at once.

/// What a step gives, if nothing is wrong; what is wrong joins the other problems.
pub(super) fn or_note<T>(problems: &mut Vec<String>, step: Result<T, Vec<String>>) -> Option<T> {
    step.map_err(|more| problems.extend(more)).ok()
}
