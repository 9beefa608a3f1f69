/** Loads a module of src into a plain Node process, its TypeScript turned into CommonJS on the way. */
const { transformFileSync } = require('@swc/core')
const Module = require('node:module')
const { join } = require('node:path')
const src = join(__dirname, '../../src')
exports.load = (name) => {
  require.extensions['.ts'] = (module, file) => {
    module._compile(
      transformFileSync(file, {
        jsc: { parser: { syntax: 'typescript' }, target: 'es2023' },
        module: { type: 'commonjs' },
      }).code,
      file,
    )
  }
  return Module.createRequire(join(src, 'index.js'))(join(src, `${name}.ts`))
}
