/**
 * Preloaded: at the end, writes the packages that were loaded, and the program's own files, to the file named in
 * LOADED_TO. The maps beside the parts of the command name the sources that they were made of.
 */
const { existsSync, readFileSync, writeFileSync } = require('node:fs')
const { basename, dirname, resolve } = require('node:path')

const sourcesOf = (part) =>
  existsSync(`${part}.map`)
    ? JSON.parse(readFileSync(`${part}.map`, 'utf8')).sources.map((source) => resolve(dirname(part), source))
    : []
process.on('exit', () => {
  const loaded = Object.keys(require.cache)
  const packages = loaded
    .map((file) => /node_modules\/((@[^/]+\/)?[^/]+)/.exec(file)?.[1])
    .filter((name) => name !== undefined)
  const parts = loaded.filter((file) => /\/dist\/command\/[^/]+\.js$/.test(file))
  const files = parts
    .flatMap(sourcesOf)
    .map((file) => /\/src\/(.*)\.ts$/.exec(file)?.[1])
    .filter((name) => name !== undefined)
  writeFileSync(
    process.env.LOADED_TO,
    JSON.stringify({
      packages: [...new Set(packages)].sort(),
      parts: parts.map((file) => basename(file)),
      files: files.sort(),
    }),
  )
})
