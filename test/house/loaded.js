/** Preloaded: at the end, writes the packages that were loaded to the file named in LOADED_TO. */
const { writeFileSync } = require('node:fs')
process.on('exit', () => {
  const packages = Object.keys(require.cache).map((file) => /node_modules\/((@[^/]+\/)?[^/]+)/.exec(file)?.[1]).filter((name) => name !== undefined)
  writeFileSync(process.env.LOADED_TO, JSON.stringify([...new Set(packages)].sort()))
})
