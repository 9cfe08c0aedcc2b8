//! How a copy goes to the store: straight from its mover, where the location says so and can lend credentials for it; else over exec to whoever makes the backup. Pure: whether the
//! mover reaches the store is found out by trying.

use crate::location::Lending;

/// What [`MOVER_CREDENTIALS`](super::super::MOVER_CREDENTIALS) says for credentials of STS.
pub(super) const STS: &str = "sts";

/// How a copy is to go.
pub(super) enum Chosen {
    /// With what is lent.
    Straight(Lending),
    /// Over exec; why, where it was to be otherwise.
    Exec(Option<String>),
}

/// The way of a volume of a location that says this, and lends this.
pub(super) fn choose(
    said: Option<&str>,
    lending: impl FnOnce() -> Result<Lending, String>,
) -> Chosen {
    match said {
        None => Chosen::Exec(None),
        Some(STS) => match lending() {
            Ok(lending) => Chosen::Straight(lending),
            Err(why) => Chosen::Exec(Some(why)),
        },
        Some(other) => {
            let name = super::super::MOVER_CREDENTIALS;
            let other: String = other.chars().take(60).collect();
            Chosen::Exec(Some(format!(
                "annotation {name} of the location says {other:?}, and {STS} alone is known"
            )))
        }
    }
}

/// Why a mover did not come so far as to write, with what its program said when it ended.
pub(super) fn not_reached(why: String, said: Option<&str>, image: &str) -> String {
    const OTHERS: [&str; 2] = ["of one version", "unrecognized subcommand"];
    let Some(said) = said else { return why };
    match OTHERS.iter().any(|words| said.contains(words)) {
        true => format!(
            "image {image} of its mover is another version of this program, which does not know all that is asked of it ({said}); --mover-image names another"
        ),
        false => format!("{why}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::VolumeKeys;
    use crate::location::Store;

    #[test]
    fn files_go_straight_only_where_the_location_says_so_and_can_lend() {
        let why =
            |said: Option<&str>, lending: Result<Lending, String>| match choose(said, || lending) {
                Chosen::Exec(why) => why,
                Chosen::Straight(_) => panic!("straight"),
            };
        let none = || Err("it is a folder".to_owned());
        assert_eq!(why(None, none()), None);
        assert_eq!(why(Some("sts"), none()).unwrap(), "it is a folder");
        let said = why(Some("keys"), none()).unwrap();
        assert!(
            said.contains("mover-credentials") && said.contains("\"keys\""),
            "{said}"
        );
        // Of a store that has nothing to lend it is its own word.
        let keys = VolumeKeys::new("c", "shop", "u").unwrap();
        let said = why(Some("sts"), Store::in_memory().lending(&keys)).unwrap();
        assert!(said.contains("memory"), "{said}");
    }

    #[test]
    fn a_mover_of_another_version_is_told_as_that() {
        let told = |said| not_reached("it ended".to_owned(), said, "i:1");
        assert_eq!(told(None), "it ended");
        assert_eq!(told(Some("no room")), "it ended: no room");
        let said = told(Some(
            "exit status 2: error: unrecognized subcommand 'archive'",
        ));
        assert!(
            said.contains("image i:1") && said.contains("--mover-image"),
            "{said}"
        );
    }
}
