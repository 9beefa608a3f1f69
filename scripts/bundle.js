/**
 * Builds the files that are not one for each source: the command's parts, the texts of help and the Kafka client.
 *
 * The command is bundled into parts, cut where the sources load on first use (`import()`). Node takes 80 ms of a start
 * to find and read 180 files; of the parts a run reads about ten.
 *
 * The Kafka client is @platformatic/kafka without its unused modules. Importing it whole costs 0.4 s of processor time,
 * because it compiles JSON schemas of clients that are not made here, and its `exports` allow no import of a
 * part. So each source that imports from it becomes one file with the modules that it needs (15 ms).
 */
'use strict'
const fs = require('fs')
const path = require('path')
const { compileFunction } = require('vm')

/**
 * Sources, without their extension, that the build fills: two re-export names of the Kafka client, one holds the texts
 * of help.
 */
const SHELLS = ['cli/rendered', 'endpoints/kafka/client-library', 'endpoints/kafka/client-codecs']

/** A plugin for esbuild that leaves out the package's unused modules and compiles no schema. */
const lean = {
  name: 'lean',
  setup({ onLoad, onResolve, resolve }) {
    onResolve({ filter: /^ajv\/dist\/2020\.js$/ }, () => ({ path: 'ajv', namespace: 'lean', sideEffects: false }))
    onLoad({ filter: /^ajv$/, namespace: 'lean' }, () => ({
      contents:
        'const unused = () => { throw new Error("options are not checked here") }\nexport class Ajv2020 { addKeyword() {} compile() { return unused } }',
    }))
    // The package does not declare its modules free of side effects, but each only defines its exports.
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

/** A plugin for esbuild that renders the texts of help from the declarations in `src` as they are now. */
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

/** A plugin for esbuild that leaves out the clients that endpoints load on first use: declarations need none. */
const DECLARATIONS = {
  name: 'declarations',
  setup({ onResolve }) {
    onResolve({ filter: /^/ }, ({ kind }) =>
      kind === 'dynamic-import' ? { path: 'unused', external: true } : undefined,
    )
  },
}

/** Writes the filled sources to `dist`, over the files that tsc made of them. */
async function fill(root) {
  const { build } = require('esbuild')
  await build({
    ...common(root),
    entryPoints: SHELLS.map((name) => path.join('src', `${name}.ts`)),
    outbase: 'src',
    outdir: 'dist',
    format: 'cjs',
    legalComments: 'inline',
    sourcemap: true,
    sourcesContent: false,
  })
}

/**
 * The command as CommonJS parts that require each other by name; `main.js` comes first.
 *
 * @param {{ external?: string[], minify?: boolean, maps?: boolean }} how `external` packages are loaded when it
 *   runs; with `maps` each part names its sources
 * @returns {Promise<{ parts: Map<string, string>, modules: number }>} the text of each part by its file's name
 */
async function commandParts(root, { external = [], minify = false, maps = false }) {
  const { build, transform } = require('esbuild')
  const { version } = manifest(root)
  const { outputFiles, metafile } = await build({
    ...common(root),
    entryPoints: ['src/cli/main.ts'],
    outdir: OUTDIR,
    write: false,
    splitting: true,
    format: 'esm',
    minifyWhitespace: minify,
    minifySyntax: minify,
    // Names are kept: a stack in a bug report has to say something.
    legalComments: 'none',
    metafile: true,
    define: { ...DEFINE, MANIFOLD_VERSION: JSON.stringify(version) },
    // ws tries to load these and works without them.
    external: ['bufferutil', 'utf-8-validate', ...external],
    sourcemap: maps ? 'inline' : false,
    sourcesContent: false,
  })
  const parts = new Map()
  for (const { path: file, text } of outputFiles) {
    // Splitting makes ES modules, which neither start as fast nor load from within a single executable.
    const { code, map } = await transform(text, {
      format: 'cjs',
      platform: 'node',
      target: 'node24',
      minifyWhitespace: minify,
      sourcemap: maps ? 'external' : false,
      sourcesContent: false,
      supported: { 'dynamic-import': false },
    })
    const name = path.basename(file)
    parts.set(name, maps ? `${code}//# sourceMappingURL=${name}.map\n` : code)
    if (maps) parts.set(`${name}.map`, map)
  }
  return { parts, modules: Object.keys(metafile.inputs).length }
}

/** Writes the command's parts to dist/command, `main.js` last: its time says that the build is whole. */
async function writeCommand(root) {
  const external = Object.keys(manifest(root).dependencies).filter((name) => name !== '@platformatic/kafka')
  const { parts } = await commandParts(root, { external, maps: true })
  const folder = path.join(root, OUTDIR)
  fs.mkdirSync(folder, { recursive: true })
  for (const name of fs.readdirSync(folder)) if (!parts.has(name)) fs.rmSync(path.join(folder, name))
  const names = [...parts.keys()].sort((one, other) => Number(one === 'main.js') - Number(other === 'main.js'))
  for (const name of names) fs.writeFileSync(path.join(folder, name), parts.get(name))
}

const manifest = (root) => JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'))

/** The package's other form reads a file from its own folder, which does not exist in the bundle. */
const ALIAS = { '@platformatic/wasm-utils': './node_modules/@platformatic/wasm-utils/dist/bundled.js' }
/** createRequire() needs a path, though nothing is ever required from it. */
const DEFINE = { 'import.meta.url': JSON.stringify('file:///manifold') }
const OUTDIR = path.join('dist', 'command')

const common = (root) => ({
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  target: 'node24',
  plugins: [lean, rendering],
  alias: ALIAS,
  define: DEFINE,
  logLevel: 'warning',
})

module.exports = { commandParts, fill, writeCommand }
