//! By which VolumeSnapshotClass a snapshot is made: Velero's rules. Pure.

use serde::Deserialize;
use serde_json::Value;

/// Annotation of a claim: the class. Label of a class: it is the one of its driver, whatever the value.
pub(crate) const CLASS: &str = "velero.io/csi-volumesnapshot-class";

/// Annotation of a class: it is the default of its driver.
const DEFAULT: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// A VolumeSnapshotClass, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Value")]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) driver: String,
    is_labelled: bool,
    is_default: bool,
}

impl From<Value> for Class {
    fn from(object: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        Self {
            name: text(&meta["name"]),
            driver: text(&object["driver"]),
            is_labelled: meta["labels"][CLASS].is_string(),
            is_default: meta["annotations"][DEFAULT].is_string(),
        }
    }
}

/// The annotation of a backup that names the class for a driver.
pub(crate) fn of_backup(driver: &str) -> String {
    format!("{CLASS}_{}", driver.to_lowercase())
}

/// The class for volumes of this driver. `named` is who names one, and which: the claim first, then the backup; empty where it does not.
///
/// # Errors
/// Why none fits.
pub(crate) fn choose<'c>(
    classes: &'c [Class],
    driver: &str,
    named: [(&str, &str); 2],
) -> Result<&'c str, String> {
    if let Some((who, name)) = named.into_iter().find(|(_, name)| !name.is_empty()) {
        let wrong = |why: &str| {
            Err(format!(
                "{who} names the VolumeSnapshotClass {name:?}, {why}"
            ))
        };
        return match classes.iter().find(|class| class.name == name) {
            Some(class) if class.driver == driver => Ok(&class.name),
            Some(class) => wrong(&format!(
                "which is of driver {} and not of {driver}",
                class.driver
            )),
            None => wrong("which does not exist"),
        };
    }
    let of_driver: Vec<&Class> = classes
        .iter()
        .filter(|class| class.driver == driver)
        .collect();
    let labelled: Vec<&&Class> = of_driver.iter().filter(|class| class.is_labelled).collect();
    match labelled.as_slice() {
        [one] => return Ok(&one.name),
        [one, other, ..] => {
            return Err(format!(
                "the VolumeSnapshotClasses {} and {} of driver {driver} have both the label {CLASS}",
                one.name, other.name
            ));
        }
        [] => {}
    }
    if let Some(default) = of_driver.iter().find(|class| class.is_default) {
        return Ok(&default.name);
    }
    match of_driver.as_slice() {
        [one] => Ok(&one.name),
        [] => Err(format!(
            "there is no VolumeSnapshotClass of driver {driver}"
        )),
        _ => Err(format!(
            "which of the VolumeSnapshotClasses of driver {driver} is meant is not said: give one the label {CLASS}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(name: &str, driver: &str, meta: &Value) -> Class {
        let mut object =
            json!({"metadata": {"name": name}, "driver": driver, "deletionPolicy": "Delete"});
        for (key, value) in meta.as_object().into_iter().flatten() {
            object["metadata"][key] = value.clone();
        }
        object.into()
    }

    fn chosen(classes: &[Class], claim: &str, backup: &str) -> Result<String, String> {
        let named = [("the claim", claim), ("the backup", backup)];
        choose(classes, "d.io", named).map(str::to_owned)
    }

    #[test]
    fn the_claim_comes_before_the_backup_and_both_before_labels_and_defaults() {
        let label = json!({"labels": {CLASS: "true"}});
        let default = json!({"annotations": {DEFAULT: "true"}});
        let mut all = vec![
            class("other", "e.io", &label),
            class("a", "d.io", &Value::Null),
            class("b", "d.io", &default),
            class("c", "d.io", &label),
        ];
        assert_eq!(chosen(&all, "a", "b").unwrap(), "a");
        assert_eq!(chosen(&all, "", "b").unwrap(), "b");
        assert_eq!(chosen(&all, "", "").unwrap(), "c");
        all.pop();
        assert_eq!(chosen(&all, "", "").unwrap(), "b");
        all.pop();
        assert_eq!(chosen(&all, "", "").unwrap(), "a");
        all.push(class("z", "d.io", &Value::Null));
        assert!(chosen(&all, "", "").is_err());
        assert!(chosen(&all[..1], "", "").is_err());
    }

    #[test]
    fn a_class_that_is_named_has_to_be_there_and_of_the_driver() {
        let label = json!({"labels": {CLASS: ""}});
        let all = [
            class("other", "e.io", &label),
            class("a", "d.io", &label),
            class("b", "d.io", &label),
        ];
        for (claim, backup, part) in [
            (
                "other",
                "",
                "the claim names the VolumeSnapshotClass \"other\", which is of driver e.io",
            ),
            ("gone", "a", "which does not exist"),
            ("", "other", "the backup names"),
            ("", "", "a and b of driver d.io"),
        ] {
            let why = chosen(&all, claim, backup).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        assert_eq!(
            of_backup("EBS.csi"),
            "velero.io/csi-volumesnapshot-class_ebs.csi"
        );
    }
}
