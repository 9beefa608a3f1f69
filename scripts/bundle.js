/**
 * Makes of the sources what is not one file for one source: the command's parts, the texts of help and the Kafka
 * client.
 *
 * The command is bundled into parts, cut where the sources load on first use (`import()`). Node takes 80 ms of a start
 * to find and read 180 files; of the parts a run reads about ten.
 *
 * @platformatic/kafka without what is not used of it. Importing it whole costs 0.4 s of CPU, for at once it compiles
 * JSON schemas for options of clients that are not made here; its `exports` let no part be imported alone. So what the
 * sources take of it becomes one file each (15 ms), of the modules that these need.
 */
'use strict'
const fs = require('fs')
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
    // ws asks for them and does without.
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

/** Its other form reads a file from beside itself, which is not there. */
const ALIAS = { '@platformatic/wasm-utils': './node_modules/@platformatic/wasm-utils/dist/bundled.js' }
/** createRequire() asks for a place; nothing is ever required from it. */
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
