"""Failures of models, images, volumes, quotas, nodes and gateways, as people told them."""

from __future__ import annotations

from typing import Any

from doctor_failure import failure


@failure("kubernetes-sigs/kind#2586", "kserve", "inotify", "max_user_instances", "webhook-answers")
def inotify_used_up(stage: Any) -> None:
    stage.crash(
        "kserve-controller-manager",
        "Error starting filewatcher: 'too many open files'. Configuration changes ...",
    )


@failure(
    "kubeflow/kubeflow#2076",
    "storage-class",
    "no default StorageClass",
    "is-default-class",
    "claims",
    "pipelines",
)
def no_storage_class(stage: Any) -> None:
    stage.cluster.documents["storageclasses"] = []
    stage.find("persistentvolumeclaims", "mysql-pv-claim").update(spec={}, status={"phase": "Pending"})
    stage.unplace(
        "mysql", "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: ..."
    )


@failure("kubeflow/pipelines#12702", "pipelines", "ml-pipeline .*cannot reach MySQL", "mysql pod first")
def started_before_its_database(stage: Any) -> None:
    stage.crash(
        "ml-pipeline",
        "I0107 22:11:17 client_manager.go:126] Initializing client manager\n"
        "F0107 22:17:42 error.go:296] dial tcp 10.97.35.125:3306: connect: connection refused",
    )


@failure("envoyproxy/gateway#1654", "gateway", "AddressNotAssigned", "LoadBalancer")
def gateway_without_an_address(stage: Any) -> None:
    gateway = stage.find("gateways", "kserve-ingress-gateway")
    for condition in gateway["status"]["conditions"]:
        if condition["type"] == "Programmed":
            condition |= {
                "status": "False",
                "reason": "AddressNotAssigned",
                "message": "No addresses have been assigned to the Gateway",
            }


@failure(
    "envoyproxy/gateway#3340", "envoy-gateway", "does not know GRPCRoute", "CRDs of gateway.networking",
    "gateway-api", "crds",
)  # fmt: skip
def gateway_api_too_old(stage: Any) -> None:
    stage.cluster.apis["gateway.networking.k8s.io/v1"].remove("grpcroutes")
    crd = stage.find("customresourcedefinitions", "httproutes.gateway.networking.k8s.io")
    crd["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"] = "v1.0.0"
    stage.crash(
        "envoy-gateway",
        "failed to create provider Kubernetes: failted to create gatewayapi controller: no matches for kind "
        '"GRPCRoute" in version "gateway.networking.k8s.io/v1"',
    )


@failure("envoyproxy/gateway#2860", "gateway-class", "no controller accepts", "controllerName", "gateway")
def class_that_nobody_accepts(stage: Any) -> None:
    stage.find("gatewayclasses", "envoy")["status"]["conditions"] = [
        {"type": "Accepted", "status": "Unknown", "reason": "Pending", "message": "Waiting for controller"}
    ]


@failure("kserve/kserve#1793", "services", "refuses this S3 key", "tenure-s3")
def model_that_may_not_be_read(stage: Any) -> None:
    refuse_model(stage, "minio.error.AccessDenied: AccessDenied: message: Access Denied")


@failure("kserve/kserve#3852", "services", "no S3 credentials", "ServiceAccount")
def model_server_without_credentials(stage: Any) -> None:
    refuse_model(stage, "botocore.exceptions.NoCredentialsError: Unable to locate credentials")


@failure("kserve/kserve#2372", "services", "finds no runtime", "ServingRuntime", "runtime")
def no_runtime(stage: Any) -> None:
    stage.remove("servingruntimes", "tenure")
    unready(stage)["status"]["modelStatus"] = {
        "transitionStatus": "InvalidSpec",
        "lastFailureInfo": {
            "reason": "NoSupportingRuntime",
            "message": "No runtime found to support specified framework/version",
        },
    }


@failure("kserve/kserve#1768", "kserve", r"does not know Service \(serving.knative.dev/v1\)", "CRDs")
def controller_that_wants_knative(stage: Any) -> None:
    stage.crash(
        "kserve-controller-manager",
        '{"level":"error","msg":"if kind is a CRD, it should be installed before calling Start","error":'
        '"no matches for kind \\"Service\\" in version \\"serving.knative.dev/v1\\""}',
    )


@failure("kubeflow/community-distribution#3270", "pipelines", "no such image or tag", "gcr.io")
def image_that_is_gone(stage: Any) -> None:
    pull(
        stage,
        "metadata-writer",
        'Failed to pull image "gcr.io/ml-pipeline/metadata-writer:1": rpc error: code = NotFound desc = '
        "failed to resolve reference: gcr.io/ml-pipeline/metadata-writer:1: not found",
    )


@failure("canonical/bundle-kubeflow#1274", "pipelines", "limits how often", "imagePullSecret")
def registry_that_limits(stage: Any) -> None:
    pull(
        stage,
        "workflow-controller",
        'Failed to pull image "charmedkubeflow/argoexec:3.4.16": unexpected status from HEAD request to '
        "https://registry-1.docker.io/v2/charmedkubeflow/argoexec/manifests/3.4.16: 429 Too Many Requests",
    )


@failure("kubeflow/pipelines#12705", "pipelines", "processor architecture", "architecture")
def images_of_another_architecture(stage: Any) -> None:
    stage.crash("ml-pipeline-ui", "exec /usr/local/bin/node: exec format error")


@failure("kserve/kserve#3487", "crds", "inferenceservices .* not there", "--server-side", "webhook-answers")
def crd_too_long_to_apply(stage: Any) -> None:
    stage.cluster.apis["serving.kserve.io/v1beta1"] = []
    stage.cluster.documents.pop("inferenceservices")
    stage.cluster.documents.pop("httproutes")
    stage.cluster.trials = [trial for trial in stage.cluster.trials if "Runtime" in trial.name]


@failure("kubeflow/pipelines#7699", "installation", "quota kf-resource-quota wants requests", "LimitRange")
def quota_that_wants_limits(stage: Any) -> None:
    refuse_pods(
        stage,
        "tenure-pilot",
        'pods "tenure-pilot-5d8f-x2x9z" is forbidden: failed quota: kf-resource-quota: must specify '
        "cpu,memory",
    )


@failure("argoproj/argo-workflows#3396", "installation", "quota compute is used up", "ResourceQuota")
def quota_used_up(stage: Any) -> None:
    refuse_pods(
        stage,
        "tenure-detector",
        'pods "tenure-detector-1" is forbidden: exceeded quota: compute, requested: requests.cpu=10100m, '
        "used: requests.cpu=60700m, limited: requests.cpu=64",
    )


@failure("kubeflow/katib#2613", "installation", "Pod Security .restricted:latest. refuses", "securityContext")
def pod_that_security_refuses(stage: Any) -> None:
    refuse_pods(
        stage,
        "tenure-mlflow",
        'pods "tenure-mlflow-69c7d5859-fvqr5" is forbidden: violates PodSecurity "restricted:latest": '
        'allowPrivilegeEscalation != false (container "mlflow" must set '
        "securityContext.allowPrivilegeEscalation=false)",
    )


@failure(
    "kubeflow/pipelines#4396",
    "pipelines",
    "Secret mlpipeline-minio-artifact is not",
    "mlpipeline-minio-artifact",
)
def secret_that_is_missing(stage: Any) -> None:
    stage.break_pod(
        "ml-pipeline",
        waiting={
            "reason": "CreateContainerConfigError",
            "message": 'secret "mlpipeline-minio-artifact" not found',
        },
    )


@failure(
    "shikanon/kubeflow-manifests#70", "pipelines", "Secret mlpipeline-minio-artifact is not", "create Secret"
)
def secret_that_cannot_be_mounted(stage: Any) -> None:
    pod = stage.break_pod("ml-pipeline-ui", waiting={"reason": "ContainerCreating"})
    stage.tell(
        "Pod",
        pod["metadata"]["name"],
        "kubeflow",
        "FailedMount",
        'MountVolume.SetUp failed for volume "mlpipeline-minio-artifact" : secret '
        '"mlpipeline-minio-artifact" not found',
    )


@failure("coredns/coredns#2391", "system", "forwarding loop", "resolv.conf")
def dns_that_asks_itself(stage: Any) -> None:
    stage.crash(
        "coredns",
        '[FATAL] plugin/loop: Loop (127.0.0.1:37926 -> :53) detected for zone ".", see https://coredns.io/plugins',
    )


@failure("vdupain/gitops-k8s#53", "routes", "NotAllowedByListeners", "allowedRoutes", "gateway")
def route_of_another_namespace(stage: Any) -> None:
    gateway = stage.find("gateways", "kserve-ingress-gateway")
    gateway["spec"]["listeners"][0].pop("allowedRoutes")
    stage.find("httproutes", "telco-customers")["status"]["parents"][0]["conditions"][0] |= {
        "status": "False",
        "reason": "NotAllowedByListeners",
        "message": "HTTPRoute is not allowed to attach to this Gateway due to namespace restrictions",
    }


@failure("kubernetes-sigs/kind#1451", "pipelines", "enough cpu left", "Docker Desktop|give the cluster more")
def too_few_processors(stage: Any) -> None:
    stage.unplace(
        "ml-pipeline", "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available"
    )


@failure("kubeflow/pipelines#4275", "pipelines", "evicted.*low on resource: memory", "request")
def evicted_for_memory(stage: Any) -> None:
    pod = stage.break_pod("metadata-writer")
    pod["status"] = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory. Container main was using 1783932Ki, which exceeds "
        "its request of 0.",
    }


@failure("kubeflow/pipelines#6121", "pipelines", "killed from outside", "memory")
def killed_from_outside(stage: Any) -> None:
    stage.crash("ml-pipeline", "I0723 15:20:24 client_manager.go:154] Initialized", code=137)


@failure("kubeflow/kubeflow#7334", "installation", "disk is full", "free space")
def disk_full(stage: Any) -> None:
    pod = stage.break_pod("tenure-detector", waiting={"reason": "ContainerCreating"})
    stage.tell(
        "Pod",
        pod["metadata"]["name"],
        "tenure",
        "FailedMount",
        'MountVolume.SetUp failed for volume "s3" : write /var/lib/kubelet/pods/ca0d/volumes/secretkey: no '
        "space left on device",
    )


@failure("kserve/kserve#3649", "crds", "inferenceservices.serving.kserve.io is being deleted", "finalizers")
def crd_that_does_not_get_away(stage: Any) -> None:
    crd = stage.find("customresourcedefinitions", "inferenceservices.serving.kserve.io")
    crd["metadata"]["deletionTimestamp"] = "2026-11-21T20:00:00Z"


@failure("kubeflow/community-distribution#2436", "pipelines", "metadata-grpc.*more memory", "limits.memory")
def out_of_memory(stage: Any) -> None:
    stage.crash("metadata-grpc-deployment", "", code=137, reason="OOMKilled")


def unready(stage: Any) -> dict[str, Any]:
    """Return the service, which is not ready."""
    service: dict[str, Any] = stage.find("inferenceservices", "telco")
    for condition in service["status"]["conditions"]:
        condition["status"] = "False"
    stage.cluster.answers.pop("model telco")
    return service


def refuse_model(stage: Any, log: str) -> None:
    """Make the storage initializer fail with these lines."""
    unready(stage)["status"]["modelStatus"] = {
        "transitionStatus": "BlockedByFailedLoad",
        "lastFailureInfo": {"reason": "ModelLoadFailed", "message": log},
    }
    pod = stage.break_pod("telco-predictor", waiting={"reason": "PodInitializing"})
    pod["status"]["phase"] = "Pending"
    pod["status"]["initContainerStatuses"] = [
        {
            "name": "storage-initializer",
            "ready": False,
            "restartCount": 12,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
        }
    ]
    stage.cluster.logs[f"tenure/{pod['metadata']['name']}/storage-initializer"] = log


def pull(stage: Any, owner: str, message: str) -> None:
    """Make the pull of a workload's image fail."""
    waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{owner}:1"'}
    pod = stage.break_pod(owner, waiting=waiting)
    stage.tell("Pod", pod["metadata"]["name"], pod["metadata"]["namespace"], "Failed", message)


def refuse_pods(stage: Any, workload: str, message: str) -> None:
    """Make the API server refuse a Deployment's pods."""
    stage.remove("pods", stage.find_pod(workload)["metadata"]["name"])
    stage.stop(workload)["status"]["conditions"].append(
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    )
