"""Who may connect to whom: callers to the load balancer, that to Envoy, and Envoy to the shards' servers."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from infra.contract import ENVOY_PORT, GRPC_PORT, HTTP_PORT
from infra.setting_groups import Envoy
from infra.stacks.network import NetworkStack

HTTPS = 443


class Connections(Construct):
    """The security groups `balancer_group` and `tasks_group`, and the `rules` of groups of the network stack.

    They are here and not in the network stack, where a group could not be deleted before the tasks that are in it.
    """

    def __init__(self, scope: Construct, *, settings: Envoy, network: NetworkStack) -> None:
        super().__init__(scope, "Connections")
        self._network = network
        self.balancer_group = self._group("Balancer", "The load balancer of Envoy")
        self.tasks_group = self._group("Tasks", "Envoy and its resolvers")
        https, own = ec2.Port.tcp(HTTPS), ec2.Port.tcp(ENVOY_PORT)
        for text in settings.caller_networks or [network.stage.settings.vpc_cidr]:
            self.balancer_group.add_ingress_rule(ec2.Peer.ipv4(text), https, "requests of callers")
        self.tasks_group.connections.allow_from(self.balancer_group, own, "requests and health checks")
        anywhere = "AWS services, and the keys of the issuer, whose addresses are not known here"
        self.tasks_group.add_egress_rule(ec2.Peer.any_ipv4(), https, anywhere)
        self.rules = [
            self._let_in(network.servers_group, HTTP_PORT, "requests"),
            self._let_in(network.servers_group, GRPC_PORT, "requests over gRPC"),
            self._let_in(network.endpoints_group, HTTPS, "AWS services"),
        ]

    def _group(self, construct_id: str, description: str) -> ec2.SecurityGroup:
        return ec2.SecurityGroup(
            self, construct_id, vpc=self._network.vpc, description=description, allow_all_outbound=False
        )

    def _let_in(self, target: ec2.SecurityGroup, port: int, what: str) -> ec2.CfnSecurityGroupIngress:
        """Allow a connection on both sides, with both rules in this stack."""
        peer = ec2.Peer.security_group_id(target.security_group_id)
        self.tasks_group.add_egress_rule(peer, ec2.Port.tcp(port), what)
        return ec2.CfnSecurityGroupIngress(
            self,
            f"To{cdk.Names.unique_resource_name(target, max_length=60)}{port}",
            group_id=target.security_group_id,
            source_security_group_id=self.tasks_group.security_group_id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            description=f"Envoy: {what}",
        )
