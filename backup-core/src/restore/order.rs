//! In which order API resources are restored. Pure. The order is Velero's; resources between which the API server needs no order
//! stand in one wave and are restored side by side.

/// Where a resource stands: its wave, and its place in Velero's order inside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Waves are restored one after the other.
    pub(super) wave: u8,
    position: u8,
}

/// The definitions come first: what they define is served only afterwards.
pub(super) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Made on first use, before everything else that is namespaced.
pub(super) const NAMESPACES: &str = "namespaces";

/// Wave of [`CRDS`].
pub(super) const WAVE_CRDS: u8 = 0;
/// Wave of [`NAMESPACES`].
pub(super) const WAVE_NAMESPACES: u8 = 1;
/// What could stand in the way of everything else is made when everything else stands, owner references included.
pub(super) const WAVE_ADMISSION: u8 = u8::MAX;

const WAVE_MIDDLE: u8 = 20;
const WAVE_LOW: u8 = 100;

/// Velero's high list in its order. The number is the wave: pods stand before replica sets and these before deployments so that each is
/// adopted instead of made anew; claims follow volumes; service accounts precede secrets, bindings and pods.
const HIGH: [(&str, u8); 23] = [
    (CRDS, WAVE_CRDS),
    (NAMESPACES, WAVE_NAMESPACES),
    ("storageclasses.storage.k8s.io", 2),
    ("volumesnapshotclasses.snapshot.storage.k8s.io", 2),
    ("volumesnapshotcontents.snapshot.storage.k8s.io", 3),
    ("volumesnapshots.snapshot.storage.k8s.io", 4),
    ("datauploads.velero.io", 4),
    ("persistentvolumes", 4),
    ("persistentvolumeclaims", 5),
    ("clusterroles.rbac.authorization.k8s.io", 5),
    ("roles.rbac.authorization.k8s.io", 5),
    ("serviceaccounts", 5),
    ("clusterrolebindings.rbac.authorization.k8s.io", 6),
    ("rolebindings.rbac.authorization.k8s.io", 6),
    ("secrets", 6),
    ("configmaps", 6),
    ("limitranges", 6),
    ("priorityclasses.scheduling.k8s.io", 6),
    ("pods", 7),
    ("replicasets.apps", 8),
    ("clusterclasses.cluster.x-k8s.io", 9),
    ("endpoints", 9),
    ("services", 9),
];

/// Velero's low list: these read what was restored before them, each also the one before.
const LOW: [&str; 5] = [
    "clusterbootstraps.run.tanzu.vmware.com",
    "clusters.cluster.x-k8s.io",
    "clusterresourcesets.addons.cluster.x-k8s.io",
    "apps.kappctrl.k14s.io",
    "packageinstalls.packaging.carvel.dev",
];

/// Groups and resources that deny or change what others create. Velero has them in the alphabetical middle, where a webhook whose service does
/// not answer yet denies the rest.
const ADMISSION: [&str; 2] = ["webhookconfigurations", "admissionpolic"];

/// Where a resource (`deployments.apps`, `pods`) stands.
pub(super) fn place(resource: &str) -> Place {
    let at = |wave: u8, position: usize| Place {
        wave,
        position: u8::try_from(position).unwrap_or(u8::MAX),
    };
    if let Some(position) = HIGH.iter().position(|(name, _)| *name == resource) {
        return at(HIGH[position].1, position);
    }
    if let Some(position) = LOW.iter().position(|name| *name == resource) {
        return at(WAVE_LOW + u8::try_from(position).unwrap_or(0), position);
    }
    if resource.ends_with(".admissionregistration.k8s.io")
        && ADMISSION.iter().any(|part| resource.contains(part))
    {
        return at(WAVE_ADMISSION, 0);
    }
    at(WAVE_MIDDLE, usize::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_veleros_with_admission_last() {
        let mut resources = vec![
            "apps.kappctrl.k14s.io",
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
            "services",
            "deployments.apps",
            "apiservices.apiregistration.k8s.io",
            "validatingadmissionpolicybindings.admissionregistration.k8s.io",
            "replicasets.apps",
            "clusters.cluster.x-k8s.io",
            "pods",
            "configmaps",
            "secrets",
            "serviceaccounts",
            "persistentvolumeclaims",
            "persistentvolumes",
            "widgets.example.com",
            "namespaces",
            "customresourcedefinitions.apiextensions.k8s.io",
            "storageclasses.storage.k8s.io",
        ];
        resources.sort_by_key(|r| (place(r), *r));
        assert_eq!(
            resources,
            [
                "customresourcedefinitions.apiextensions.k8s.io",
                "namespaces",
                "storageclasses.storage.k8s.io",
                "persistentvolumes",
                "persistentvolumeclaims",
                "serviceaccounts",
                "secrets",
                "configmaps",
                "pods",
                "replicasets.apps",
                "services",
                "apiservices.apiregistration.k8s.io",
                "deployments.apps",
                "widgets.example.com",
                "clusters.cluster.x-k8s.io",
                "apps.kappctrl.k14s.io",
                "validatingadmissionpolicybindings.admissionregistration.k8s.io",
                "validatingwebhookconfigurations.admissionregistration.k8s.io",
            ]
        );
    }

    #[test]
    fn positions_never_contradict_waves() {
        assert!(HIGH.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    }
}
