//! Other storage classes and other images: Velero's actions change-storage-class and change-image-name. Pure.
//!
//! A class is mapped as a whole, of claims, volumes and the claim templates of stateful sets, in the field and in the annotation that came before
//! it. An image is mapped by a part of its name: the first rule whose part is in it replaces every such part. Pods and all that make
//! them, as far as Kubernetes itself knows them; the images of image volumes too.

use std::collections::{BTreeMap, BTreeSet};

use super::{edit, edit_each};
use crate::error::{Error, Result};
use crate::raw::RawObject;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Maps the storage class; tells what was mapped.
///
/// # Errors
/// `Invalid`, when it would become one of `missing`.
pub(super) fn classes(
    resource: &str,
    object: &mut RawObject<'_>,
    mapping: &BTreeMap<String, String>,
    missing: &BTreeSet<String>,
) -> Result<Option<String>> {
    if mapping.is_empty() {
        return Ok(None);
    }
    let mut changed = BTreeSet::new();
    let mut map = |holder: &mut RawObject<'_>, key: &str| {
        let Some(old) = text(holder, key) else {
            return Ok(());
        };
        let Some(new) = mapping.get(&old) else {
            return Ok(());
        };
        if missing.contains(new) {
            return Err(Error::invalid(format!(
                "storage class {old} is mapped to {new}, which the target does not have"
            )));
        }
        changed.insert(format!("storage class {old} to {new}"));
        holder.set(key, new)
    };
    let mut claim = |object: &mut RawObject<'_>| {
        edit(object, "metadata", |metadata| {
            edit(metadata, "annotations", |annotations| {
                map(annotations, CLASS_ANNOTATION)
            })
        })?;
        edit(object, "spec", |spec| map(spec, "storageClassName"))
    };
    match resource {
        "persistentvolumeclaims" | "persistentvolumes" => claim(object)?,
        "statefulsets.apps" => edit(object, "spec", |spec| {
            edit_each(spec, "volumeClaimTemplates", |template| {
                claim(template)?;
                Ok(true)
            })
        })?,
        _ => {}
    }
    Ok(joined(changed))
}

/// Maps images; tells what was mapped.
///
/// # Errors
/// `Corrupt`, when containers are no list of objects.
pub(super) fn images(
    resource: &str,
    object: &mut RawObject<'_>,
    rules: &[(String, String)],
) -> Result<Option<String>> {
    if rules.is_empty() {
        return Ok(None);
    }
    let mut changed = BTreeSet::new();
    let mut map = |holder: &mut RawObject<'_>, key: &str| {
        let Some(old) = text(holder, key) else {
            return Ok(());
        };
        let Some((part, other)) = rules.iter().find(|(part, _)| old.contains(part.as_str())) else {
            return Ok(());
        };
        let new = old.replace(part.as_str(), other);
        changed.insert(format!("image {old} to {new}"));
        holder.set(key, &new)
    };
    let mut pod = |spec: &mut RawObject<'_>| {
        for containers in ["containers", "initContainers"] {
            edit_each(spec, containers, |container| {
                map(container, "image")?;
                Ok(true)
            })?;
        }
        edit_each(spec, "volumes", |volume| {
            edit(volume, "image", |image| map(image, "reference"))?;
            Ok(true)
        })
    };
    match resource {
        "pods" => edit(object, "spec", pod)?,
        "cronjobs.batch" => edit(object, "spec", |spec| {
            edit(spec, "jobTemplate", |job| {
                edit(job, "spec", |spec| {
                    edit(spec, "template", |template| edit(template, "spec", pod))
                })
            })
        })?,
        "podtemplates" => edit(object, "template", |template| edit(template, "spec", pod))?,
        "deployments.apps"
        | "statefulsets.apps"
        | "daemonsets.apps"
        | "replicasets.apps"
        | "replicationcontrollers"
        | "jobs.batch" => edit(object, "spec", |spec| {
            edit(spec, "template", |template| {
                edit(template, "spec", &mut pod)
            })
        })?,
        _ => {}
    }
    Ok(joined(changed))
}

fn text(object: &RawObject<'_>, key: &str) -> Option<String> {
    let text: String = serde_json::from_str(object.get(key)?).ok()?;
    (!text.is_empty()).then_some(text)
}

fn joined(changed: BTreeSet<String>) -> Option<String> {
    (!changed.is_empty()).then(|| changed.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(resource: &str, body: &str) -> (String, Option<String>) {
        let mut object = RawObject::parse(body).unwrap();
        let class = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        let mapping = BTreeMap::from([class("slow", "fast"), class("old", "gone")]);
        let missing = BTreeSet::from(["gone".to_owned()]);
        let classes = classes(resource, &mut object, &mapping, &missing).unwrap();
        let rules = [
            class("docker.io/", "mirror.example.com/"),
            class("nginx", "httpd"),
        ];
        let images = images(resource, &mut object, &rules).unwrap();
        let told = classes.into_iter().chain(images).collect::<Vec<_>>();
        let told = (!told.is_empty()).then(|| told.join("; "));
        (String::from_utf8(object.to_vec()).unwrap(), told)
    }

    #[test]
    fn classes_and_images_are_mapped_where_velero_maps_them_and_no_further() {
        let class = "storage class slow to fast";
        let image = "image docker.io/nginx:1 to mirror.example.com/nginx:1";
        for (resource, before, after, told) in [
            (
                "persistentvolumeclaims",
                r#"{"spec":{"storageClassName":"slow"}}"#,
                r#"{"spec":{"storageClassName":"fast"}}"#,
                class,
            ),
            (
                "persistentvolumes",
                r#"{"spec":{"storageClassName":"slow"}}"#,
                r#"{"spec":{"storageClassName":"fast"}}"#,
                class,
            ),
            (
                "persistentvolumeclaims",
                r#"{"metadata":{"annotations":{"volume.beta.kubernetes.io/storage-class":"slow"}},"spec":{}}"#,
                r#"{"metadata":{"annotations":{"volume.beta.kubernetes.io/storage-class":"fast"}},"spec":{}}"#,
                class,
            ),
            (
                "persistentvolumeclaims",
                r#"{"spec":{"storageClassName":""}}"#,
                r#"{"spec":{"storageClassName":""}}"#,
                "",
            ),
            (
                "persistentvolumeclaims",
                r#"{"spec":{"storageClassName":"slower"}}"#,
                r#"{"spec":{"storageClassName":"slower"}}"#,
                "",
            ),
            (
                "statefulsets.apps",
                r#"{"spec":{"volumeClaimTemplates":[{"spec":{"storageClassName":"slow"}},{"spec":{}}]}}"#,
                r#"{"spec":{"volumeClaimTemplates":[{"spec":{"storageClassName":"fast"}},{"spec":{}}]}}"#,
                class,
            ),
            (
                "widgets.example.com",
                r#"{"spec":{"storageClassName":"slow"}}"#,
                r#"{"spec":{"storageClassName":"slow"}}"#,
                "",
            ),
            (
                "pods",
                r#"{"spec":{"containers":[{"image":"docker.io/nginx:1"},{"image":"other"},{"name":"none"}],"initContainers":[{"image":"a/nginx-nginx"}],"volumes":[{"image":{"reference":"docker.io/nginx:1"}},{"emptyDir":{}}]}}"#,
                r#"{"spec":{"containers":[{"image":"mirror.example.com/nginx:1"},{"image":"other"},{"name":"none"}],"initContainers":[{"image":"a/httpd-httpd"}],"volumes":[{"image":{"reference":"mirror.example.com/nginx:1"}},{"emptyDir":{}}]}}"#,
                "image a/nginx-nginx to a/httpd-httpd, image docker.io/nginx:1 to mirror.example.com/nginx:1",
            ),
            (
                "cronjobs.batch",
                r#"{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"docker.io/nginx:1"}]}}}}}}"#,
                r#"{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"mirror.example.com/nginx:1"}]}}}}}}"#,
                image,
            ),
            (
                "podtemplates",
                r#"{"template":{"spec":{"containers":[{"image":"docker.io/nginx:1"}]}}}"#,
                r#"{"template":{"spec":{"containers":[{"image":"mirror.example.com/nginx:1"}]}}}"#,
                image,
            ),
            (
                "widgets.example.com",
                r#"{"spec":{"containers":[{"image":"nginx"}]}}"#,
                r#"{"spec":{"containers":[{"image":"nginx"}]}}"#,
                "",
            ),
            (
                "pods",
                r#"{"spec":{"containers":[{"image":7}]}}"#,
                r#"{"spec":{"containers":[{"image":7}]}}"#,
                "",
            ),
        ] {
            let (done, said) = mapped(resource, before);
            assert_eq!(
                (done.as_str(), said.unwrap_or_default().as_str()),
                (after, told),
                "{resource} {before}"
            );
        }
        for resource in [
            "deployments.apps",
            "statefulsets.apps",
            "daemonsets.apps",
            "replicasets.apps",
            "replicationcontrollers",
            "jobs.batch",
        ] {
            let (done, said) = mapped(
                resource,
                r#"{"spec":{"template":{"spec":{"containers":[{"image":"docker.io/nginx:1"}]}}}}"#,
            );
            assert!(
                done.contains("mirror.example.com/nginx:1") && said.as_deref() == Some(image),
                "{resource}"
            );
        }
    }

    #[test]
    fn a_class_that_the_target_lacks_fails_the_object_that_would_have_it() {
        let mut object = RawObject::parse(r#"{"spec":{"storageClassName":"old"}}"#).unwrap();
        let mapping = BTreeMap::from([("old".to_owned(), "gone".to_owned())]);
        let missing = BTreeSet::from(["gone".to_owned()]);
        let refused = classes("persistentvolumeclaims", &mut object, &mapping, &missing);
        let said = refused.unwrap_err().to_string();
        assert_eq!(
            said,
            "storage class old is mapped to gone, which the target does not have"
        );
    }
}
