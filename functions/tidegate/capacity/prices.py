"""List prices in US dollars, by hand from AWS's price lists: inputs of the estimate, not a quote."""

from __future__ import annotations

from typing import Final

PRICE_DATE: Final = "2025-06"
PRICE_REGION: Final = "us-east-1"

SOURCES: Final = {
    "instances, disks": "https://aws.amazon.com/ec2/pricing/on-demand/",
    "Fargate": "https://aws.amazon.com/fargate/pricing/",
    "load balancers": "https://aws.amazon.com/elasticloadbalancing/pricing/",
    "HTTP API": "https://aws.amazon.com/api-gateway/pricing/",
    "Lambda": "https://aws.amazon.com/lambda/pricing/",
    "S3": "https://aws.amazon.com/s3/pricing/",
    "DynamoDB": "https://aws.amazon.com/dynamodb/pricing/on-demand/",
    "logs, metrics, alarms, traces": "https://aws.amazon.com/cloudwatch/pricing/",
    "CloudFront, web ACL": "https://aws.amazon.com/cloudfront/pricing/",
}
"""Where each price is stated."""

_VCPUS: Final = {
    "large": 2,
    "xlarge": 4,
    "2xlarge": 8,
    "4xlarge": 16,
    "8xlarge": 32,
    "12xlarge": 48,
    "16xlarge": 64,
    "24xlarge": 96,
    "48xlarge": 192,
}
"""vCPUs by size: prices of these families are in proportion to them."""

PER_INSTANCE_HOUR: Final = {
    "g4dn.xlarge": 0.526,
    "g4dn.2xlarge": 0.752,
    "g4dn.4xlarge": 1.204,
    "g4dn.8xlarge": 2.176,
    "g4dn.12xlarge": 3.912,
    "g4dn.16xlarge": 4.352,
    "g4dn.metal": 7.824,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g5.8xlarge": 2.448,
    "g5.12xlarge": 5.672,
    "g5.16xlarge": 4.096,
    "g5.24xlarge": 8.144,
    "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6.8xlarge": 2.0144,
    "g6.12xlarge": 4.6016,
    "g6.16xlarge": 3.3968,
    "g6.24xlarge": 6.6752,
    "g6.48xlarge": 13.3504,
    "g6e.xlarge": 1.861,
    "g6e.2xlarge": 2.24208,
    "g6e.4xlarge": 3.00424,
    "g6e.8xlarge": 4.52856,
    "g6e.12xlarge": 10.49264,
    "g6e.16xlarge": 7.57719,
    "g6e.24xlarge": 15.06559,
    "g6e.48xlarge": 30.13118,
    **{f"c7i.{size}": 0.044625 * vcpus for size, vcpus in _VCPUS.items()},
    **{f"m7i.{size}": 0.0504 * vcpus for size, vcpus in _VCPUS.items()},
}
"""On demand, Linux, in US dollars; the setting `prices` adds others and goes over these."""

PRICES: Final = {
    "Fargate, per core and hour, x86_64": 0.04048,
    "Fargate, per core and hour, arm64": 0.03238,
    "Fargate, per GiB and hour, x86_64": 0.004445,
    "Fargate, per GiB and hour, arm64": 0.00356,
    "disk, per GiB": 0.08,
    "disk throughput beyond 125, per MiB/s": 0.04,
    "disk operations beyond 3,000, per operation": 0.005,
    "detailed monitoring, per instance": 2.10,
    "load balancer, per hour": 0.0225,
    "load balancer capacity unit, per hour": 0.008,
    "interface endpoint, per hour and zone": 0.01,
    "NAT gateway, per hour": 0.045,
    "key": 1.00,
    "secret": 0.40,
    "image storage, per GB": 0.10,
    "alarm": 0.10,
    "dashboard beyond three": 3.00,
    "custom metric": 0.30,
    "log ingestion, per GB": 0.50,
    "HTTP API, per million up to 300": 1.00,
    "HTTP API, per million beyond": 0.90,
    "Lambda, per million": 0.20,
    "Lambda, per GB-second": 0.0000133334,
    "Lambda kept ready, per GB-second": 0.0000033334,
    "Lambda snapshot kept, per GB-second": 0.0000015046,
    "Lambda snapshot restored, per GB": 0.0001397998,
    "CloudFront, per million": 1.00,
    "web ACL": 5.00,
    "web ACL, per million": 0.60,
    "small build, per minute": 0.005,
    "S3 GET, per million": 0.40,
    "S3 LIST, per million": 5.00,
    "DynamoDB write, per million": 0.625,
    "DynamoDB read, per million": 0.125,
    "trace, per million": 5.00,
}
"""List prices in US dollars a month, where the name says nothing else; Lambda's are those of arm64."""
