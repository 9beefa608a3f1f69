/**
 * Preloaded: at the end, writes the packages that were loaded, and the program's own files, to the file named in
 * LOADED_TO.
 */
const { writeFileSync } = require('node:fs')
process.on('exit', () => {
  const loaded = Object.keys(require.cache)
  const packages = loaded
    .map((file) => /node_modules\/((@[^/]+\/)?[^/]+)/.exec(file)?.[1])
    .filter((name) => name !== undefined)
  const files = loaded
    .map((file) => /\/dist\/(.*)\.js$/.exec(file)?.[1])
    .filter((name, index) => name !== undefined && !loaded[index].includes('node_modules'))
  writeFileSync(process.env.LOADED_TO, JSON.stringify({ packages: [...new Set(packages)].sort(), files: files.sort() }))
})
