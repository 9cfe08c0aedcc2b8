//! What a restore changes in objects: the flags, the files and the ConfigMaps of the target, put together.

use std::path::{Path, PathBuf};

use backup_core::restore::rewriting::{self, Found, Rewriting, StatusKinds};
use backup_core::{Error, Kind};
use clap::Args;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{CommandError, Result};

/// What is changed in objects on their way.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What is changed on the way")]
pub(super) struct RewritingArgs {
    /// Storage classes to replace, OLD:NEW (comma list, can be repeated)
    #[arg(long, value_name = "OLD:NEW")]
    storage_class_mappings: Vec<String>,
    /// Parts of image names to replace, OLD=NEW, such as docker.io/=mirror.example.com/; the first that fits counts (comma list, can be repeated)
    #[arg(long, value_name = "OLD=NEW")]
    image_mappings: Vec<String>,
    /// ConfigMap with Velero's resource modifiers, in the target's namespace velero or --velero-namespace, as its ConfigMaps for storage classes and images, which count too
    #[arg(long, value_name = "NAME")]
    resource_modifier_configmap: Option<String>,
    /// File with Velero's ConfigMaps for storage classes, images or resource modifiers, or with the modifiers alone (can be repeated)
    #[arg(
        long,
        value_name = "FILE",
        visible_alias = "resource-modifiers-file",
        value_hint = clap::ValueHint::FilePath
    )]
    rewrite_file: Vec<PathBuf>,
    /// Kinds whose status comes back too, or * (comma list, can be repeated) [default: objects annotated velero.io/restore-status=true]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    status_include_resources: Vec<String>,
    /// But not of these kinds (comma list, can be repeated)
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        requires = "status_include_resources"
    )]
    status_exclude_resources: Vec<String>,
}

impl RewritingArgs {
    /// The ConfigMap with resource modifiers.
    pub(super) fn config_map(&self) -> Option<&str> {
        self.resource_modifier_configmap.as_deref()
    }

    /// What the flags and files say, before any cluster is asked.
    ///
    /// # Errors
    /// Usage, for what can not be meant.
    pub(super) fn given(&self) -> Result<Found> {
        let mut found = Found {
            rewriting: Rewriting {
                storage_classes: flags::pairs(
                    "--storage-class-mappings",
                    ':',
                    &self.storage_class_mappings,
                )?,
                images: images(&self.image_mappings)?,
                status: (!self.status_include_resources.is_empty()).then(|| StatusKinds {
                    included: self.status_include_resources.clone(),
                    excluded: self.status_exclude_resources.clone(),
                }),
                ..Rewriting::default()
            },
            ..Found::default()
        };
        let mut modifiers = usize::from(self.resource_modifier_configmap.is_some());
        for path in &self.rewrite_file {
            let of_file = read(path)?;
            modifiers += usize::from(of_file.rewriting.modifiers.is_some());
            found = found.over(of_file);
        }
        if modifiers > 1 {
            return Err(CommandError::usage(
                Error::invalid("resource modifiers are given more than once")
                    .hint("put their rules into one file or ConfigMap"),
            ));
        }
        Ok(found)
    }

    /// The same with the ConfigMap of the target that was asked for; says what was taken from where.
    ///
    /// # Errors
    /// The cluster's; a ConfigMap that can not be meant.
    pub(super) async fn asked(&self, context: &Context) -> Result<Rewriting> {
        let mut given = self.given()?;
        if let Some(name) = &self.resource_modifier_configmap {
            let cluster = context.cluster().await?;
            let found = rewriting::modifiers_of_cluster(cluster, context.velero(), name);
            given = given.over(found.await?);
        }
        Ok(told(context, given))
    }
}

/// What the target's Velero is told of classes and images; says what was taken from where.
///
/// # Errors
/// The cluster's; ConfigMaps that can not be meant.
pub(super) async fn of_target(context: &Context) -> Result<Rewriting> {
    let cluster = context.cluster().await?;
    let found = rewriting::of_cluster(cluster, context.velero()).await?;
    Ok(told(context, found))
}

fn told(context: &Context, found: Found) -> Rewriting {
    for told in &found.told {
        context.ui.note(&format!("rewriting {told}"));
    }
    for warning in &found.warnings {
        context.ui.warn(warning);
    }
    found.rewriting
}

/// `OLD=NEW`, in the order in which they are given.
fn images(items: &[String]) -> Result<Vec<(String, String)>> {
    items
        .iter()
        .flat_map(|item| item.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| match item.split_once('=') {
            Some((old, new)) if !old.is_empty() && !new.is_empty() => {
                Ok((old.to_owned(), new.to_owned()))
            }
            _ => Err(CommandError::usage(
                Error::invalid(format!("invalid value for --image-mappings: {item:?}"))
                    .hint("write it as OLD=NEW, several with commas between"),
            )),
        })
        .collect()
}

fn read(path: &Path) -> Result<Found> {
    let refused = |e: Error| {
        CommandError::usage(e.context(format!(
            "can not take {} for --rewrite-file",
            path.display()
        )))
    };
    let read = || {
        let size = std::fs::metadata(path)?;
        // Not what a pipe or a device would give without end.
        if size.is_file() && size.len() > rewriting::LARGEST_FILE as u64 {
            return Err(std::io::Error::other("it is larger than 4 MiB"));
        }
        std::fs::read_to_string(path)
    };
    let text = read().map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Invalid,
        };
        refused(Error::new(kind, "it can not be read").because(e))
    })?;
    rewriting::of_file(&text).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_cli::error::Exit;

    fn refused(args: &RewritingArgs) -> String {
        let error = args.given().unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        error.error().sentence()
    }

    #[test]
    fn flags_win_over_files_and_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rewrites.yaml");
        std::fs::write(
            &file,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {velero.io/change-storage-class: RestoreItemAction}}\ndata: {slow: medium, old: other}\n\
             ---\nkind: ConfigMap\nmetadata: {name: i, labels: {velero.io/change-image-name: RestoreItemAction}}\ndata: {b: 'x,y', a: ' one , two '}\n\
             ---\nversion: v1\nresourceModifierRules: [{conditions: {groupResource: pods}, mergePatches: [{patchData: '{\"a\": 1}'}]}]\n",
        )
        .unwrap();
        let found = RewritingArgs {
            storage_class_mappings: vec!["slow:fast".into()],
            image_mappings: vec!["z=1,a=2".into(), "x=3".into()],
            rewrite_file: vec![file.clone()],
            ..RewritingArgs::default()
        }
        .given()
        .unwrap();
        let classes: Vec<_> = found.rewriting.storage_classes.iter().collect();
        assert_eq!(
            classes,
            [
                (&"old".to_owned(), &"other".to_owned()),
                (&"slow".to_owned(), &"fast".to_owned())
            ]
        );
        let images: Vec<String> = found
            .rewriting
            .images
            .iter()
            .map(|(old, new)| format!("{old}={new}"))
            .collect();
        assert_eq!(images, ["z=1", "a=2", "x=3", "one=two", "x=y"]);
        assert_eq!(
            found.told,
            [
                "storage classes: old to other, slow to medium (ConfigMap c)",
                "images: one to two, x to y (ConfigMap i)",
                "resource modifiers: one rule (the file)"
            ]
        );
        let twice = RewritingArgs {
            rewrite_file: vec![file],
            resource_modifier_configmap: Some("m".into()),
            ..RewritingArgs::default()
        };
        assert!(refused(&twice).contains("more than once"));
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for (item, part) in [("a", "OLD=NEW"), ("=b", "OLD=NEW"), ("a=", "OLD=NEW")] {
            let args = RewritingArgs {
                image_mappings: vec![item.into()],
                ..RewritingArgs::default()
            };
            assert!(refused(&args).contains(part), "{item}");
        }
        let args = RewritingArgs {
            storage_class_mappings: vec!["fast".into()],
            ..RewritingArgs::default()
        };
        assert!(refused(&args).contains("--storage-class-mappings"));
        let folder = tempfile::tempdir().unwrap();
        let large = " ".repeat(5 << 20);
        for (name, text, part) in [
            ("large", large.as_str(), "larger than 4 MiB"),
            ("empty", "# nothing\n", "empty"),
            ("other", "kind: Secret\n", "it holds a Secret"),
            ("yaml", "a: [\n", "not the YAML"),
            ("map", "kind: ConfigMap\ndata: {a: b, c: d}\n", "2 entries"),
            (
                "bomb",
                "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]\n",
                "not the YAML",
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let args = RewritingArgs {
                rewrite_file: vec![path],
                ..RewritingArgs::default()
            };
            let said = refused(&args);
            assert!(said.contains(part) && said.contains(name), "{name}: {said}");
        }
        let args = RewritingArgs {
            rewrite_file: vec![folder.path().join("none")],
            ..RewritingArgs::default()
        };
        assert!(refused(&args).contains("can not be read"));
    }
}
