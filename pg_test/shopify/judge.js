// Judges queries and answers of the GraphQL Admin API by Shopify's own schemas, which are in the package
// @shopify/dev-mcp, with graphql-js. Nothing is sent by this.
//
// The first argument is the folder with both packages. Reads questions as JSON from stdin, one a line, and answers each
// with a line: a list of what is wrong.
//
//     {"versions": true}                                   the versions that there are schemas of
//     {"version": V, "query": Q, "variables": {...}}       a query
//     {..., "answer": {"data": ...}}                       and what it was answered with

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const zlib = require("node:zlib");

const folder = process.argv[2];
const graphql = require(path.join(folder, "graphql"));
const schemas = path.join(folder, "dev-mcp", "dist", "data");

const loaded = new Map();
function schemaOf(version) {
  if (!loaded.has(version)) {
    const text = zlib.gunzipSync(fs.readFileSync(path.join(schemas, `admin_${version}.json.gz`)));
    loaded.set(version, graphql.buildClientSchema(JSON.parse(text).data, { assumeValid: true }));
  }
  return loaded.get(version);
}

// What the schema lets pass and a bulk operation refuses: a list is selected by its edges.
function bulkProblems(schema, document) {
  const problems = [];
  const types = new graphql.TypeInfo(schema);
  let connections = 0;
  graphql.visit(
    document,
    graphql.visitWithTypeInfo(types, {
      VariableDefinition: () => void problems.push("a bulk query takes no variables"),
      Field(node) {
        const parent = types.getParentType()?.name ?? "";
        if (parent.endsWith("Connection") && node.name.value !== "edges") {
          problems.push(`a bulk query selects ${node.name.value} of ${parent}, and not edges`);
        }
        const type = graphql.getNamedType(types.getType());
        if (type?.name.endsWith("Connection")) connections += 1;
      },
    }),
  );
  if (connections === 0) problems.push("a bulk query without a list");
  if (connections > 5) problems.push("a bulk query with more than five lists");
  return problems;
}

const scalars = {
  Int: (value) => Number.isInteger(value),
  Float: (value) => typeof value === "number",
  Boolean: (value) => typeof value === "boolean",
  DateTime: (value) => typeof value === "string" && !Number.isNaN(Date.parse(value)) && /T.*Z$/.test(value),
  Decimal: (value) => typeof value === "string" && /^-?\d+(\.\d+)?$/.test(value),
  Money: (value) => typeof value === "string" && /^-?\d+(\.\d+)?$/.test(value),
  UnsignedInt64: (value) => typeof value === "string" && /^\d+$/.test(value),
};

// Whether an answer has what was asked for and nothing else, each of its type.
function answerProblems(schema, document, data) {
  const problems = [];
  const fragments = new Map();
  const operation = document.definitions.find((part) => part.kind === "OperationDefinition");
  for (const part of document.definitions) {
    if (part.kind === "FragmentDefinition") fragments.set(part.name.value, part);
  }
  function typeOf(type, object, selections) {
    if (graphql.isObjectType(type)) return type;
    if (object.__typename) return schema.getType(object.__typename);
    // By its id, as in gid://shopify/BasicEvent/1; or by what only one of its types has.
    const named = /^gid:\/\/shopify\/(\w+)\//.exec(object.id ?? "")?.[1];
    if (named && schema.getType(named)) return schema.getType(named);
    return schema.getPossibleTypes(type).find((possible) =>
      Object.keys(object).every((name) => possible.getFields()[name]));
  }
  function fieldsOf(type, set) {
    const fields = [];
    for (const part of set.selections) {
      if (part.kind === "Field") fields.push(part);
      else {
        const fragment = part.kind === "InlineFragment" ? part : fragments.get(part.name.value);
        const condition = fragment.typeCondition && schema.getType(fragment.typeCondition.name.value);
        const applies = !condition || condition === type
          || (graphql.isAbstractType(condition) && schema.isSubType(condition, type));
        if (applies) fields.push(...fieldsOf(type, fragment.selectionSet));
      }
    }
    return fields;
  }
  function object(type, value, set, place) {
    type = typeOf(type, value, set);
    if (!type) return void problems.push(`${place}: of no known type`);
    const asked = new Set();
    for (const field of fieldsOf(type, set)) {
      const name = field.alias?.value ?? field.name.value;
      asked.add(name);
      if (!(name in value)) {
        problems.push(`${place}.${name} was asked for and is not there`);
      } else if (field.name.value !== "__typename") {
        check(type.getFields()[field.name.value].type, value[name], field.selectionSet, `${place}.${name}`);
      }
    }
    for (const name of Object.keys(value)) {
      if (!asked.has(name)) problems.push(`${place}.${name} was not asked for`);
    }
  }
  function check(type, value, set, place) {
    if (graphql.isNonNullType(type)) {
      if (value === null) return void problems.push(`${place} is null, and may not be`);
      return check(type.ofType, value, set, place);
    }
    if (value === null) return;
    if (graphql.isListType(type)) {
      if (!Array.isArray(value)) return void problems.push(`${place} is no list`);
      return value.forEach((item, i) => check(type.ofType, item, set, `${place}.${i}`));
    }
    if (set) {
      if (typeof value !== "object" || Array.isArray(value)) return void problems.push(`${place} is no object`);
      return object(type, value, set, place);
    }
    if (graphql.isEnumType(type)) {
      if (!type.getValue(value)) problems.push(`${place}: ${type.name} has no ${value}`);
    } else {
      const holds = scalars[type.name] ?? ((text) => typeof text === "string");
      if (!holds(value)) problems.push(`${place}: ${JSON.stringify(value)} is no ${type.name}`);
    }
  }
  const root = operation.operation === "mutation" ? schema.getMutationType() : schema.getQueryType();
  object(root, data, operation.selectionSet, "data");
  return problems;
}

function judge({ version, query, variables, answer }) {
  const schema = schemaOf(version);
  let document;
  try {
    document = graphql.parse(query);
  } catch (error) {
    return [error.message];
  }
  const problems = graphql.validate(schema, document).map((error) => error.message);
  const operation = document.definitions.find((part) => part.kind === "OperationDefinition");
  const values = graphql.getVariableValues(schema, operation.variableDefinitions ?? [], variables ?? {});
  problems.push(...(values.errors ?? []).map((error) => error.message));
  for (const name of Object.keys(variables ?? {})) {
    const isThere = operation.variableDefinitions?.some((known) => known.variable.name.value === name);
    if (!isThere) problems.push(`the query has no variable ${name}`);
  }
  if (operation.operation === "mutation" && variables?.query) {
    const bulk = graphql.parse(variables.query);
    problems.push(...graphql.validate(schema, bulk).map((error) => error.message), ...bulkProblems(schema, bulk));
  }
  if (problems.length === 0 && answer?.data) problems.push(...answerProblems(schema, document, answer.data));
  return problems;
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const asked = JSON.parse(line);
  const versions = () => fs.readdirSync(schemas)
    .map((name) => /^admin_(\d{4}-\d{2})\.json\.gz$/.exec(name)?.[1])
    .filter(Boolean)
    .sort();
  console.log(JSON.stringify(asked.versions ? versions() : judge(asked)));
});
