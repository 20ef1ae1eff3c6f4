// Extracts the operations Drover uses from GitHub's OpenAPI description, as plain JSON Schema.
// usage: node github-openapi.extract.mjs package/generated/api.github.com.json > github-openapi.json
import { readFileSync } from "node:fs";

const OPERATIONS = [
  "GET /app",
  "GET /app/installations",
  "GET /orgs/{org}/installation",
  "GET /repos/{owner}/{repo}/installation",
  "POST /app/installations/{installation_id}/access_tokens",
  "POST /orgs/{org}/actions/runners/generate-jitconfig",
  "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig",
  "GET /orgs/{org}/actions/runners",
  "GET /repos/{owner}/{repo}/actions/runners",
  "GET /orgs/{org}/actions/runners/{runner_id}",
  "GET /repos/{owner}/{repo}/actions/runners/{runner_id}",
  "DELETE /orgs/{org}/actions/runners/{runner_id}",
  "DELETE /repos/{owner}/{repo}/actions/runners/{runner_id}",
  "GET /orgs/{org}/actions/runner-groups",
  "GET /repos/{owner}/{repo}/actions/jobs/{job_id}",
  "GET /orgs/{org}/repos",
  "GET /repos/{owner}/{repo}/actions/runs",
  "GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs",
  "POST /repos/{owner}/{repo}/check-runs",
  "PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}",
  "POST /repos/{owner}/{repo}/actions/jobs/{job_id}/rerun",
  "GET /app/hook/deliveries",
  "POST /app/hook/deliveries/{delivery_id}/attempts",
  "GET /app/hook/config",
  "PATCH /app/hook/config",
  "POST /app-manifests/{code}/conversions",
];

const description = JSON.parse(readFileSync(process.argv[2], "utf8"));
const wanted = new Set(); // names of the component schemas reached so far
const PROSE = new Set(["description", "title", "example", "examples", "default", "deprecated", "externalDocs", "readOnly"]);

/** OpenAPI 3.0's dialect to JSON Schema: `nullable` becomes a type, prose goes, references point into `schemas`. */
function schema(node) {
  if (Array.isArray(node)) return node.map(schema);
  if (node === null || typeof node !== "object") return node;
  if (node.$ref) {
    const name = node.$ref.replace("#/components/schemas/", "");
    wanted.add(name);
    return { $ref: `#/schemas/${name}` };
  }
  const out = {};
  for (const [key, value] of Object.entries(node)) {
    if (key === "properties") {
      out.properties = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, schema(each)]));
    } else if (key === "enum" || key === "required") {
      out[key] = value;
    } else if (!PROSE.has(key) && key !== "nullable" && !key.startsWith("x-")) {
      out[key] = schema(value);
    }
  }
  if (!node.nullable) return out;
  if (out.enum && !out.enum.includes(null)) out.enum = [...out.enum, null];
  return out.type ? { ...out, type: [out.type, "null"] } : { anyOf: [out, { type: "null" }] };
}

function answer(response) {
  const resolved = response.$ref ? description.components.responses[response.$ref.split("/").pop()] : response;
  const json = resolved.content?.["application/json"];
  return json ? schema(json.schema) : null; // null: no body
}

const operations = {};
for (const operation of OPERATIONS) {
  const [method, path] = operation.split(" ");
  const found = description.paths[path][method.toLowerCase()];
  operations[operation] = Object.fromEntries(
    Object.entries(found.responses).map(([status, response]) => [status, answer(response)]),
  );
}
const schemas = {};
for (const name of wanted) schemas[name] = schema(description.components.schemas[name]); // grows while it is read
process.stdout.write(JSON.stringify({ operations, schemas }) + "\n");
