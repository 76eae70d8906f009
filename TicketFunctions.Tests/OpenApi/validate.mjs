// Reads { document, cases: [{ schema, isOpen, value }] } and prints, for each case, what is wrong with its value, or null.
// A schema is a JSON pointer into the document. Answers are held to it without a member more, unless isOpen says that more may come.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(`${process.cwd()}/`)
const Ajv = require('ajv/dist/2020').default
const addFormats = require('ajv-formats').default

const { document, cases } = JSON.parse(readFileSync(0, 'utf8'))

function compiler(api) {
  const ajv = new Ajv({ strict: false, allErrors: true })
  addFormats(ajv)
  ajv.addSchema(api, 'api')
  return pointer => ajv.compile({ $ref: `api#${pointer.replaceAll('{', '%7B').replaceAll('}', '%7D')}` })
}

const open = compiler(document)
const closedDocument = structuredClone(document)
for (const schema of Object.values(closedDocument.components.schemas)) {
  schema.additionalProperties ??= false
}
const closed = compiler(closedDocument)

console.log(JSON.stringify(cases.map(({ schema, isOpen, value }) => {
  const validate = (isOpen ? open : closed)(schema)
  return validate(value) ? null : validate.errors.map(error => `${error.instancePath} ${error.message}`).join('; ')
})))
