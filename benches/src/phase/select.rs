//! Which phases run.

use regex::Regex;

use super::{Group, PHASES, Phase};

/// The phases to run, and those that cannot run here.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// What runs.
    pub phases: Vec<&'static Phase>,
    /// What was asked for and cannot run: the missing program, the phases.
    pub skipped: Vec<(String, Vec<&'static str>)>,
}

/// Phases whose name matches one of `only` (all, when there is none), of one of `groups` (all, when there is none),
/// whose programs `has` finds.
///
/// # Errors
/// In words: nothing is left to run.
pub fn select(only: &[Regex], groups: &[Group], has: impl Fn(&str) -> bool) -> Result<Selection, String> {
    let mut selection = Selection::default();
    for phase in PHASES {
        let wanted = (only.is_empty() || only.iter().any(|r| r.is_match(phase.name)))
            && (groups.is_empty() || groups.contains(&phase.group));
        if !wanted {
            continue;
        }
        match phase.programs().iter().find(|p| !has(p)) {
            None => selection.phases.push(phase),
            Some(missing) => match selection.skipped.iter_mut().find(|(program, _)| program == missing) {
                Some((_, names)) => names.push(phase.name),
                None => selection.skipped.push(((*missing).to_owned(), vec![phase.name])),
            },
        }
    }
    if !selection.phases.is_empty() {
        return Ok(selection);
    }
    Err(match selection.skipped.first() {
        Some((program, _)) => format!("{program} is not installed, and the phases asked for need it"),
        None => "no phase has such a name (see --list)".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::{Action, Item, Shape, Want};
    use super::*;

    fn names(only: &[&str], groups: &[Group], missing: &str) -> Vec<&'static str> {
        let only: Vec<Regex> = only.iter().map(|r| Regex::new(r).unwrap()).collect();
        select(&only, groups, |p| p != missing).unwrap().phases.iter().map(|p| p.name).collect()
    }

    #[test]
    fn by_name_and_group() {
        assert_eq!(names(&[], &[], "").len(), PHASES.len());
        assert_eq!(names(&["^stat_cold"], &[], ""), ["stat_cold_1t", "stat_cold_4t"]);
        assert_eq!(names(&["^untar$", "sync"], &[], "").len(), 4);
        assert!(names(&["cold"], &[Group::Tree], "").iter().all(|n| n.starts_with("tree_") || n.starts_with("git_")));
    }

    #[test]
    fn what_is_not_installed_is_skipped_and_said() {
        let selection = select(&[], &[], |p| p != "fio").unwrap();
        assert!(selection.phases.iter().all(|p| p.group != Group::Fio));
        assert_eq!(selection.skipped.len(), 1);
        assert_eq!((selection.skipped[0].0.as_str(), selection.skipped[0].1.len()), ("fio", 7));
        assert!(!names(&[], &[], "git").iter().any(|n| n.starts_with("git_")));
    }

    #[test]
    fn nothing_left_is_an_error() {
        assert!(select(&[Regex::new("^nosuch$").unwrap()], &[], |_| true).unwrap_err().contains("--list"));
        assert!(select(&[], &[Group::Fio], |_| false).unwrap_err().contains("fio is not installed"));
    }

    #[test]
    fn the_catalogue_holds_together() {
        let mut seen = HashSet::new();
        for phase in PHASES {
            assert!(seen.insert(phase.name), "{} is there twice", phase.name);
            assert!(!phase.what.is_empty() && phase.what.len() < 90);
            for (item, shape) in phase.after {
                // What a phase changes it must have asked for.
                let before = phase.before.iter().find(|(i, _)| i == item);
                let (_, want) = before.unwrap_or_else(|| panic!("{}: {item:?}", phase.name));
                assert_ne!(*want, Want::Is(*shape), "{}: {item:?} does not change", phase.name);
            }
            if let Action::Work(_, item, threads) = phase.action {
                assert!(phase.before.iter().any(|(i, _)| *i == item), "{}", phase.name);
                assert!(phase.name.ends_with(&format!("_{threads}t")), "{}", phase.name);
            }
            let renamed = phase.after.contains(&(Item::Large, Shape::Renamed));
            assert!(!renamed, "the large directory has no other names");
        }
    }
}
