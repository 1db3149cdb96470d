"""JSON schemas of Kubernetes' own kinds and of ours, for kubeconform without a network.

They are made from the OpenAPI document that lies in the module of the pinned
Kubernetes, and from crds/: what an API server of that version knows, and nothing else.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from chart.specs import ROOT
from tools.catalogue import GO_TOOLS
from tools.gobuild import find_go

Schema = dict[str, Any]

_PREFIX = "#/definitions/"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def write_schemas(folder: Path) -> None:
    """Write one file for each kind, as kubeconform looks for them: ``<kind>-<group>-<version>.json``."""
    definitions = json.loads(_openapi().read_text(encoding="utf-8"))["definitions"]
    # What OpenAPI 2 cannot say: both are numbers or text.
    for name in (INT_OR_STRING, QUANTITY):
        definitions[name] = {"type": ["string", "number"]}
    for definition in definitions.values():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            _write(folder, kind, _resolved(definition, definitions, ()))
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for version in crd["versions"]:
            kind = {"group": crd["group"], "version": version["name"], "kind": crd["names"]["kind"]}
            schema = _closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            _write(folder, kind, schema)


def _write(folder: Path, kind: dict[str, str], schema: Schema) -> None:
    name = "-".join(part for part in (kind["kind"], kind["group"].split(".")[0], kind["version"]) if part)
    (folder / f"{name.lower()}.json").write_text(json.dumps(schema), encoding="utf-8")


def _openapi() -> Path:
    """The OpenAPI document in the Go module of the Kubernetes that the local cluster runs."""
    done = subprocess.run(
        [find_go(), "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"],
        cwd=GO_TOOLS["kubernetes"].module,
        capture_output=True,
        text=True,
        check=True,
    )
    directory = done.stdout.strip()
    if not directory:
        subprocess.run([find_go(), "mod", "download"], cwd=GO_TOOLS["kubernetes"].module, check=True)
        return _openapi()
    return Path(directory) / "api/openapi-spec/swagger.json"


def _resolved(schema: Any, definitions: dict[str, Schema], above: tuple[str, ...]) -> Any:
    """The schema with its references put in place; one that contains itself is left open where it does."""
    if isinstance(schema, list):
        return [_resolved(item, definitions, above) for item in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.removeprefix(_PREFIX)
        if name in above:
            return {}
        return _resolved(definitions[name], definitions, (*above, name))
    resolved = {
        key: _resolved(value, definitions, above)
        for key, value in schema.items()
        if key not in _NOT_JSON_SCHEMA or isinstance(value, dict)  # a field of that name
    }
    return _strict(resolved)


_NOT_JSON_SCHEMA = ("description", "format", "x-kubernetes-group-version-kind")


def _strict(schema: Schema) -> Schema:
    """No unknown fields, where the fields are known."""
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


def _closed(schema: Any) -> Any:
    """A CRD's schema without what JSON Schema does not know, and without unknown fields."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    return _strict({key: _closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")})
