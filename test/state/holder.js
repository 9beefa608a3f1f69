/**
 * Another process that holds locks: `node holder.js PATH…` takes each with BEGIN EXCLUSIVE, as src/state/lock.ts does, prints "held" or "refused" for each
 * and stays until it is ended.
 */
const { DatabaseSync } = require('node:sqlite')
const { writeFileSync } = require('node:fs')
const kept = []
for (const path of process.argv.slice(2)) {
  const database = new DatabaseSync(path)
  try {
    database.exec('BEGIN EXCLUSIVE')
    writeFileSync(`${path}.pid`, `${process.pid}\n`)
    kept.push(database)
    process.stdout.write('held\n')
  } catch (error) { process.stdout.write(error.errcode === 5 ? 'refused\n' : `${error.message}\n`) }
}
setInterval(() => kept.length, 1000)
