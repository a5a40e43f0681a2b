//! What users bring along: containers of their own, one Redis for all pods, and certificates.

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use serde_json::{Value, json};
use udht_tests::cluster::kubectl::Kubectl;
use udht_tests::cluster::release::Release;
use udht_tests::cluster::wait::until;

use crate::world::{SOON, World, record, wait_for_status};

/// Release, Redis, and the Secrets with the certificates of either.
const NAME: &str = "brought";
const CACHE: &str = "cache";
const CACHE_TLS: &str = "cache-tls";
const OWN_TLS: &str = "own-tls";
const PASSWORD: &str = "e2e-of-no-worth";

/// What a namespace of restricted pods asks of each container.
const SECURITY: &str = "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true, runAsUser: 65532, \
                        capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";

/// A Secret as cert-manager makes it, with an authority of its own and a certificate of this name.
fn certificates(secret: &str, name: &str) -> Result<Value> {
    let mut params = CertificateParams::default();
    // Of one name with what it signs it would be none to OpenSSL.
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("authority of {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([name.to_owned()])?.signed_by(&key, &authority)?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret},
        "type": "kubernetes.io/tls",
        "stringData": {"ca.crt": authority.pem(), "tls.crt": leaf.pem(), "tls.key": key.serialize_pem()},
    }))
}

/// A Redis that speaks TLS alone, with who shows a certificate and knows the password.
fn cache(image: &str, release: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: {CACHE}}}
stringData: {{url: "rediss://:{PASSWORD}@{CACHE}:6379"}}
---
apiVersion: v1
kind: Service
metadata: {{name: {CACHE}}}
spec: {{selector: {{role: {CACHE}}}, ports: [{{port: 6379}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {CACHE}, labels: {{role: {CACHE}}}}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  securityContext: {{fsGroup: 65532}}
  containers:
    - name: {CACHE}
      image: {image}
      command: [redis-server]
      args: [--port, "0", --tls-port, "6379", --tls-ca-cert-file, /tls/ca.crt, --tls-cert-file, /tls/tls.crt, --tls-key-file, /tls/tls.key,
             --requirepass, {PASSWORD}, --dir, /data, --appendonly, "yes", --appendfsync, "no", --save, "", --maxmemory-policy, noeviction]
      securityContext: {SECURITY}
      volumeMounts: [{{name: tls, mountPath: /tls}}, {{name: data, mountPath: /data}}]
  volumes: [{{name: tls, secret: {{secretName: {CACHE_TLS}, defaultMode: 0440}}}}, {{name: data, emptyDir: {{}}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {CACHE}}}
spec:
  podSelector: {{matchLabels: {{role: {CACHE}}}}}
  ingress:
    - from: [{{podSelector: {{matchLabels: {{app.kubernetes.io/instance: {release}}}}}}}]
      ports: [{{port: 6379}}]
"#
    )
}

/// What the Redis answers.
fn ask_cache(kubectl: &Kubectl, words: &[&str]) -> Result<String> {
    let mut command = vec!["redis-cli", "--tls", "--cacert", "/tls/ca.crt"];
    command.extend(["--cert", "/tls/tls.crt", "--key", "/tls/tls.key"]);
    command.extend(["-e", "--no-auth-warning", "-a", PASSWORD]);
    command.extend(words);
    kubectl.exec(CACHE, CACHE, command).output()
}

/// Waits until the application of this pod has told of `key`.
fn wait_for_application(release: &Release, pod: &str, key: &str) -> Result<()> {
    until(
        &format!("the application of {pod} hears of {key}"),
        SOON,
        || {
            let said = release.kubectl.say(&format!("logs {pod} -c app"))?;
            ensure!(said.contains(key), "{}", said.trim());
            Ok(())
        },
    )
}

pub(crate) fn what_users_bring_is_used(world: &mut World) -> Result<()> {
    let release = world.beside(NAME);
    let kubectl = &release.kubectl;
    let fullname = release.fullname();
    let tag = &world.arguments.image_tag;
    let of_cluster = format!("{}-{fullname}.udht.internal", kubectl.namespace());
    for secret in [
        certificates(CACHE_TLS, CACHE)?,
        certificates(OWN_TLS, &of_cluster)?,
    ] {
        kubectl.apply(&secret.to_string())?;
    }
    kubectl.apply(&cache(&world.arguments.redis_image, NAME))?;
    until("the Redis answers", SOON, || ask_cache(kubectl, &["ping"]))?;
    let values = format!(
        r#"
replicas: 2
image: {{tag: "{tag}"}}
store: external
external: {{urlSecret: {{name: {CACHE}}}, tls: {{secretName: {CACHE_TLS}, clientCertificate: true}}}}
tls: {{mode: secret, secretName: {OWN_TLS}}}
networkPolicy: {{egress: {{mode: restricted}}}}
containers: [{{name: app, image: "udht-manager:{tag}", args: [watch], securityContext: {SECURITY}}}]
"#
    );
    release.helm.install(&release.name, &values)?;
    let pods = release.wait_until_ready(2)?;
    let mut reaches = release.reaches(&pods);
    reaches[0]
        .put("/v1/peers/brought", &record("brought"))?
        .ok()?;
    wait_for_status(&mut reaches, "brought", 200)?;
    for pod in &pods {
        wait_for_application(&release, &pod.name, "brought")?;
        let names: Vec<_> = pod.containers.keys().map(String::as_str).collect();
        ensure!(
            names == ["app", "manager", "sync"],
            "{}: {names:?}",
            pod.name
        );
        let restarts = pod.container("app")?.restarts;
        ensure!(restarts == 0, "app began {restarts} times too early");
    }
    world.saw(
        "beside manager and sync, an application of each pod was told of a write in one of them",
    );

    let keys = ask_cache(kubectl, &["--scan", "--pattern", "udht:*"])?;
    for pod in &pods {
        let prefix = format!("udht:{}/{fullname}:{}:", kubectl.namespace(), pod.name);
        let own = keys.lines().filter(|key| key.starts_with(&prefix)).count();
        ensure!(own > 1, "{own} keys begin with {prefix}:\n{keys}");
        world.saw(&format!(
            "{own} keys of the one Redis, over TLS, begin with {prefix}"
        ));
    }
    for reach in &mut reaches {
        let metrics = reach.metrics()?;
        let ends = metrics.sum("udht_tls_certificate_expiry_timestamp_seconds", &[]);
        ensure!(ends > Some(0.0), "{}: no certificate", reach.pod());
        let refused = metrics.sum("udht_tls_refused_total", &[]);
        let refused = refused.context("no udht_tls_refused_total")?;
        ensure!(
            refused < 1.0,
            "{} refused {refused} connections",
            reach.pod()
        );
    }
    release.helm.test(&release.name)?;
    world.saw(&format!(
        "the pods speak under {of_cluster}, by certificates of the user's own; `helm test` passes with helm {}",
        release.helm.version()?
    ));

    release.helm.uninstall(&release.name)?;
    kubectl.say(&format!(
        "delete pod,service,secret,networkpolicy {CACHE} --wait=false"
    ))?;
    kubectl.say(&format!("delete secret {CACHE_TLS} {OWN_TLS}"))?;
    Ok(())
}
