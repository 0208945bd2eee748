"""The network: private subnets, the permitted connections, and endpoints of the services that are used without the internet."""

from __future__ import annotations

import ipaddress

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_route53 as route53
from constructs import Construct

from infra.contract import AGENT_PORT, DCGM_PORT, GRPC_PORT, HTTP_PORT, METRICS_PORT
from infra.settings import MAX_ZONES
from infra.stacks.parts import Stage, depend_on_policy, explain, log_group, statement
from infra.stacks.storage import StorageStack

INTERFACES = ("ecr.api", "ecr.dkr", "ecs", "ecs-agent", "ecs-telemetry", "logs", "secretsmanager")
"""The services that servers and functions reach through an interface endpoint; S3 and DynamoDB have gateways."""

ZONE = "tidegate.internal"
"""Names of shards inside the VPC: `<label>.tidegate.internal`."""

BALANCER_PORT = 80

POINTER_PORT = AGENT_PORT
"""Where a shard's balancer serves its agents' `/pointer`, and nothing else: who may read it need not reach the models."""

POINTER_HOST = f"pointer.agents.{ZONE}"
"""The balancers of all shards whose agents keep the pointer. No shard's name: a label has no dot."""


class NetworkStack(cdk.Stack):
    """The VPC, its security groups and endpoints. Nothing in it is reachable from the internet."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage, storage: StorageStack) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=stage.called("network"),
            description="Tidegate: VPC, security groups, endpoints, the shards' names",
            termination_protection=stage.settings.termination_protection,
        )
        self.stage, self._storage = stage, storage
        has_nat = stage.settings.nat_gateways > 0
        private = ec2.SubnetType.PRIVATE_WITH_EGRESS if has_nat else ec2.SubnetType.PRIVATE_ISOLATED
        self.subnets = ec2.SubnetSelection(subnet_type=private)
        self.vpc = self._vpc(private, has_nat)
        self._flow_logs()
        self.gateway_group = self._group("Gateway", "The gateway function")
        self.control_group = self._group("Control", "The functions that reach every server: reconcile, probe, rollback")
        self.isolated_group = self._group("Isolated", "The functions that reach no server")
        self.balancer_group = self._group("Balancers", "Load balancers of the shards")
        self.servers_group = self._group("Servers", "Triton servers and their agents")
        self.instances_group = self._group("Instances", "The instances that servers run on")
        self.endpoints_group = self._group("Endpoints", "Interface endpoints")
        self._rules()
        self._endpoints()
        self.zone = route53.PrivateHostedZone(self, "Zone", zone_name=ZONE, vpc=self.vpc)
        explain(
            self.zone,
            checkov={
                "CKV2_AWS_38": "DNSSEC signs public zones only.",
                "CKV2_AWS_39": "Query logging is for public zones.",
            },
        )

        subnets = cdk.Fn.join(",", self.vpc.select_subnets(subnet_type=private).subnet_ids)
        for name, value, what in (
            ("ControlGroupId", self.control_group.security_group_id, "What publishes is in this security group,"),
            ("SubnetIds", subnets, "and in these subnets"),
        ):
            cdk.CfnOutput(self, name, value=value, description=what)

    def _vpc(self, private: ec2.SubnetType, has_nat: bool) -> ec2.Vpc:
        settings = self.stage.settings
        count = settings.availability_zones
        # Every subnet that there may ever be has its addresses from the start, so that a zone or a NAT gateway more moves
        # none: a quarter of the range for each zone's private subnet, and of the last quarter /26 for each zone's NAT.
        quarter = ipaddress.IPv4Network(settings.vpc_cidr).prefixlen + 2
        subnets = [
            ec2.SubnetConfiguration(name="Private", subnet_type=private, cidr_mask=quarter),
            ec2.SubnetConfiguration(
                name="Nat",
                subnet_type=ec2.SubnetType.PUBLIC,
                cidr_mask=26,
                map_public_ip_on_launch=False,
                reserved=not has_nat,
            ),
        ]
        return ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(settings.vpc_cidr),
            # Named by position, so that nothing is looked up.
            availability_zones=[cdk.Fn.select(index, cdk.Fn.get_azs()) for index in range(count)],
            reserved_azs=MAX_ZONES - count,
            nat_gateways=settings.nat_gateways,
            subnet_configuration=subnets,
        )

    def _flow_logs(self) -> None:
        group = log_group(self, "FlowLogs", self.stage, f"/tidegate/{self.stage.name}/flow", self._storage.key)
        role = iam.Role(self, "FlowLogsRole", assumed_by=iam.ServicePrincipal("vpc-flow-logs.amazonaws.com"))
        flow_log = self.vpc.add_flow_log(
            "FlowLog",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(group, role),
            traffic_type=ec2.FlowLogTrafficType.REJECT,
        )
        depend_on_policy(flow_log, role)
        explain(
            self.vpc,
            checkov={
                "CKV2_AWS_12": "Nothing is in the default group; changing its rules would take a custom resource."
            },
        )

    def _group(self, construct_id: str, description: str) -> ec2.SecurityGroup:
        return ec2.SecurityGroup(self, construct_id, vpc=self.vpc, description=description, allow_all_outbound=False)

    def _rules(self) -> None:
        http = ec2.Port.tcp(HTTP_PORT)
        _allow(self.gateway_group, self.balancer_group, ec2.Port.tcp(BALANCER_PORT), "requests")
        _allow(self.balancer_group, self.servers_group, http, "requests")
        _allow(self.balancer_group, self.servers_group, ec2.Port.tcp(AGENT_PORT), "health: loaded or not")
        if self.stage.settings.pointer_cache:
            for group in (self.gateway_group, self.isolated_group):
                _allow(group, self.balancer_group, ec2.Port.tcp(POINTER_PORT), "the pointer")
        _allow(self.control_group, self.servers_group, http, "state of models")
        _allow(self.control_group, self.servers_group, ec2.Port.tcp(GRPC_PORT), "loads")
        _allow(self.control_group, self.servers_group, ec2.Port.tcp(METRICS_PORT), "metrics")
        if self.stage.settings.triton.dcgm_exporter_tag is not None:
            _allow(self.control_group, self.servers_group, ec2.Port.tcp(DCGM_PORT), "metrics of GPUs")
        https = ec2.Port.tcp(443)
        groups = [self.gateway_group, self.control_group, self.servers_group, self.instances_group]
        if self.stage.settings.console is not None:
            # The console reads CloudWatch.
            groups.append(self.isolated_group)
        for group in groups:
            self.endpoints_group.connections.allow_from(group, https, "AWS services")
        anywhere = "AWS services: the addresses of S3 and DynamoDB are not known here, and there is no other way out"
        for group in (
            self.gateway_group,
            self.control_group,
            self.isolated_group,
            self.servers_group,
            self.instances_group,
        ):
            group.add_egress_rule(ec2.Peer.any_ipv4(), https, anywhere)

    def _endpoints(self) -> None:
        storage = self._storage
        s3 = self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3, subnets=[self.subnets])
        layers = f"arn:{self.partition}:s3:::prod-{self.region}-starport-layer-bucket/*"
        for each in (
            statement(["s3:*"], [storage.bucket.bucket_arn, storage.bucket.arn_for_objects("*")]),
            # Where ECR keeps the layers of images.
            statement(["s3:GetObject"], [layers]),
        ):
            each.add_any_principal()
            s3.add_to_policy(each)
        tables = self.vpc.add_gateway_endpoint(
            "DynamoDb", service=ec2.GatewayVpcEndpointAwsService.DYNAMODB, subnets=[self.subnets]
        )
        own = statement(["dynamodb:*"], [storage.registry.table_arn, storage.facts.table_arn])
        own.add_any_principal()
        tables.add_to_policy(own)
        sessions = ("ssmmessages",) if self.stage.settings.triton.remote_commands else ()
        queues = ("sqs",) if self.stage.settings.shadows else ()
        figures = () if self.stage.settings.console is None else ("monitoring",)
        for name in (*INTERFACES, *queues, *sessions, *figures):
            self.vpc.add_interface_endpoint(
                name.title().replace(".", "").replace("-", ""),
                service=ec2.InterfaceVpcEndpointAwsService(name),
                subnets=self.subnets,
                security_groups=[self.endpoints_group],
                open=False,
                private_dns_enabled=True,
            )


def _allow(source: ec2.SecurityGroup, target: ec2.SecurityGroup, port: ec2.Port, what: str) -> None:
    target.connections.allow_from(source, port, what)
