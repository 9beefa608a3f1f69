/**
 * Parts of dist/ that are not a source's own text: the texts of help, and the Kafka client.
 *
 * @platformatic/kafka without what is not used of it. Importing it whole costs 0.4 s of CPU, for at once it compiles
 * JSON schemas for options of clients that are not made here; its `exports` let no part be imported alone. So what the
 * sources take of it becomes one file each (15 ms), of the modules that these need.
 */
'use strict'
const path = require('path')
const { compileFunction } = require('vm')

/**
 * Sources, without their ending, that the build fills: two only pass on what they take of the package, one holds the
 * texts of help.
 */
const SHELLS = ['cli/rendered', 'endpoints/kafka/client-library', 'endpoints/kafka/client-codecs']

/** For esbuild: what nobody asks for of the package is left out, and no schema is compiled. */
const lean = {
  name: 'lean',
  setup({ onLoad, onResolve, resolve }) {
    onResolve({ filter: /^ajv\/dist\/2020\.js$/ }, () => ({ path: 'ajv', namespace: 'lean', sideEffects: false }))
    onLoad({ filter: /^ajv$/, namespace: 'lean' }, () => ({
      contents:
        'const unused = () => { throw new Error("options are not checked here") }\nexport class Ajv2020 { addKeyword() {} compile() { return unused } }',
    }))
    // It says so of none of its modules: each only defines what it exports.
    onResolve({ filter: /^(@platformatic\/kafka$|\.)/ }, async ({ path: of, pluginData, ...from }) => {
      if (
        pluginData === lean ||
        (of !== '@platformatic/kafka' && !/[\\/]@platformatic[\\/]kafka[\\/]dist/.test(from.resolveDir))
      )
        return undefined
      const found = await resolve(of, {
        importer: from.importer,
        kind: from.kind,
        resolveDir: from.resolveDir,
        pluginData: lean,
      })
      return { ...found, sideEffects: false }
    })
  },
}

/** For esbuild: the texts of help, from the declarations as they are in `src` at this moment. */
const rendering = {
  name: 'rendering',
  setup({ initialOptions: { absWorkingDir: root }, onLoad }) {
    onLoad({ filter: /[\\/]src[\\/]cli[\\/]rendered\.ts$/ }, async () => ({
      contents: `export const rendered = ${JSON.stringify(await texts(root), undefined, 1)}`,
    }))
  },
}

async function texts(root) {
  const { build } = require('esbuild')
  const {
    outputFiles: [{ text }],
  } = await build({
    absWorkingDir: root,
    entryPoints: [path.join('src', 'cli', 'help.ts')],
    write: false,
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node24',
    plugins: [DECLARATIONS],
    logLevel: 'warning',
  })
  const module = { exports: {} }
  compileFunction(text, ['module', 'exports', 'require'])(module, module.exports, require)
  return module.exports.texts()
}

/** The clients that endpoints load on first use are no part of their declarations. */
const DECLARATIONS = {
  name: 'declarations',
  setup({ onResolve }) {
    onResolve({ filter: /^/ }, ({ kind }) =>
      kind === 'dynamic-import' ? { path: 'unused', external: true } : undefined,
    )
  },
}

/** The shells of `src` as whole files in `dist`, over those of tsc. */
async function fill(root) {
  const { build } = require('esbuild')
  await build({
    absWorkingDir: root,
    entryPoints: SHELLS.map((name) => path.join('src', `${name}.ts`)),
    outbase: 'src',
    outdir: 'dist',
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node24',
    plugins: [lean, rendering],
    alias: ALIAS,
    define: DEFINE,
    legalComments: 'inline',
    sourcemap: true,
    sourcesContent: false,
    logLevel: 'warning',
  })
}

/** Its other form reads a file from beside itself, which is not there. */
const ALIAS = { '@platformatic/wasm-utils': './node_modules/@platformatic/wasm-utils/dist/bundled.js' }
/** createRequire() asks for a place; nothing is ever required from it. */
const DEFINE = { 'import.meta.url': JSON.stringify('file:///manifold') }

module.exports = { ALIAS, DEFINE, fill, lean, rendering }
